# For thread-sanitized builds: links tests/testing/tsan_absl.cc, which says why, into everything that uses our targets.
set(tsan_absl_source ${PROJECT_SOURCE_DIR}/tests/testing/tsan_absl.cc)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${tsan_absl_source})
file(STRINGS ${tsan_absl_source} tsan_absl_lines REGEX "^WRAP\\(")

add_library(tensorshelf_tsan_absl STATIC ${tsan_absl_source})
target_link_libraries(tensorshelf_tsan_absl PUBLIC absl::synchronization)
target_link_libraries(tensorshelf_options INTERFACE $<BUILD_INTERFACE:tensorshelf_tsan_absl>)
foreach(line IN LISTS tsan_absl_lines)
  string(REGEX MATCH "_ZN[A-Za-z0-9_]+" symbol "${line}")
  target_link_options(tensorshelf_options INTERFACE -Wl,--wrap=${symbol})
endforeach()
