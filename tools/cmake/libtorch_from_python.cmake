# Defines tensorshelf_libtorch (headers, among them the pybind11 that torch was built with; libtorch, c10) and
# tensorshelf_libtorch_python (that and libtorch_python), from the torch that the found Python imports.
#
# Not find_package(Torch): a CUDA build of torch stops there on a machine without the CUDA toolkit, and we call nothing of
# CUDA's ourselves. Paths come from torch.utils.cmake_prefix_path, which lies inside the installed torch.
#
# No RPATH: the extension is imported after torch, whose libraries are then in the process under the same names.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)

execute_process(
  COMMAND ${Python_EXECUTABLE} -c "import torch; print(torch.__version__, int(torch._C._GLIBCXX_USE_CXX11_ABI), torch.utils.cmake_prefix_path, sep=';')"
  OUTPUT_VARIABLE tensorshelf_torch_answer ERROR_VARIABLE tensorshelf_torch_error RESULT_VARIABLE tensorshelf_torch_result
  OUTPUT_STRIP_TRAILING_WHITESPACE)
if(NOT tensorshelf_torch_result EQUAL 0)
  message(FATAL_ERROR "${Python_EXECUTABLE} cannot import torch. Install torch >= 2.6 there first, and build against it with "
                      "`pip install --no-build-isolation .`. Python said:\n${tensorshelf_torch_error}")
endif()
list(GET tensorshelf_torch_answer 0 tensorshelf_torch_version)
list(GET tensorshelf_torch_answer 1 tensorshelf_torch_new_abi)
list(GET tensorshelf_torch_answer 2 tensorshelf_torch_prefix)
if(tensorshelf_torch_version VERSION_LESS 2.6)
  message(FATAL_ERROR "torch ${tensorshelf_torch_version} is too old: tensorshelf needs 2.6 or later")
endif()
if(NOT tensorshelf_torch_new_abi)
  message(FATAL_ERROR "torch ${tensorshelf_torch_version} was built with the old C++ ABI (torch._C._GLIBCXX_USE_CXX11_ABI is "
                      "False), which abseil and RocksDB of this system do not share. Install torch 2.7 or later, or a 2.6 "
                      "build with the new ABI.")
endif()

cmake_path(GET tensorshelf_torch_prefix PARENT_PATH tensorshelf_torch_root)  # torch/share/cmake -> torch/share
cmake_path(GET tensorshelf_torch_root PARENT_PATH tensorshelf_torch_root)    # -> torch
foreach(library IN ITEMS c10 torch_cpu torch torch_python)
  if(NOT EXISTS ${tensorshelf_torch_root}/lib/lib${library}.so)
    message(FATAL_ERROR "torch ${tensorshelf_torch_version} has no ${tensorshelf_torch_root}/lib/lib${library}.so")
  endif()
endforeach()
message(STATUS "Found torch ${tensorshelf_torch_version}: ${tensorshelf_torch_root}")

if(NOT TARGET tensorshelf_libtorch)
  # SYSTEM by nature of an imported target: torch's headers do not pass our warnings.
  add_library(tensorshelf_libtorch INTERFACE IMPORTED)
  target_include_directories(tensorshelf_libtorch INTERFACE ${tensorshelf_torch_root}/include
                             ${tensorshelf_torch_root}/include/torch/csrc/api/include)
  target_compile_definitions(tensorshelf_libtorch INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
  target_link_libraries(tensorshelf_libtorch INTERFACE ${tensorshelf_torch_root}/lib/libtorch.so
                        ${tensorshelf_torch_root}/lib/libtorch_cpu.so ${tensorshelf_torch_root}/lib/libc10.so)
  add_library(tensorshelf_libtorch_python INTERFACE IMPORTED)
  target_link_libraries(tensorshelf_libtorch_python INTERFACE tensorshelf_libtorch
                        ${tensorshelf_torch_root}/lib/libtorch_python.so)
endif()
