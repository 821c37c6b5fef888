# What `cmake --install` puts under the prefix, for find_package(tensorshelf): headers under include/tensorshelf (so that
# `#include "store/store.h"` reads the same inside and outside the tree), static libraries, and the package files.
#
# Components: "development" is all of that; the wheel takes "python" alone, which python/ and tools/ fill.

include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(tensorshelf_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tensorshelf)
set(tensorshelf_exported options foundation engine index store)
if(TENSORSHELF_PYTHON)
  list(APPEND tensorshelf_exported torch)
endif()

foreach(name IN LISTS tensorshelf_exported)
  if(NOT TARGET tensorshelf_${name})
    continue()
  endif()
  set_target_properties(tensorshelf_${name} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS tensorshelf_${name} EXPORT tensorshelf-targets
          ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
endforeach()
install(EXPORT tensorshelf-targets NAMESPACE tensorshelf:: DESTINATION ${tensorshelf_package_dir} COMPONENT development)

# The headers that name libaio or RocksDB are the private side of engine/ and index/.
install(DIRECTORY engine index store DESTINATION include/tensorshelf COMPONENT development
        FILES_MATCHING PATTERN "*.h" REGEX "/linux_(direct_probe|file|lock|queue)[.]h$" EXCLUDE PATTERN "rocksdb_*.h" EXCLUDE)
if(TENSORSHELF_PYTHON)
  install(DIRECTORY python/libtorch DESTINATION include/tensorshelf/python COMPONENT development
          FILES_MATCHING PATTERN "*.h")
endif()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/tensorshelf-config.cmake.in
                              ${PROJECT_BINARY_DIR}/tensorshelf-config.cmake
                              INSTALL_DESTINATION ${tensorshelf_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tensorshelf-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tensorshelf-config.cmake ${PROJECT_BINARY_DIR}/tensorshelf-config-version.cmake
              ${CMAKE_CURRENT_LIST_DIR}/Findlibaio.cmake ${CMAKE_CURRENT_LIST_DIR}/Findxxhash.cmake
              ${CMAKE_CURRENT_LIST_DIR}/libtorch_from_python.cmake
        DESTINATION ${tensorshelf_package_dir} COMPONENT development)
