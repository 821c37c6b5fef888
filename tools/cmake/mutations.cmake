# Defines TENSORSHELF_MUTATIONS for the sources that have breakages in them, and for no other: the rest of a mutated build
# is what every build has, and comes from the compiler cache. No header may use TS_MUTATE.
foreach(folder engine index store)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/*.cc)
  foreach(source ${sources})
    file(STRINGS ${source} uses REGEX "TS_MUTATE")
    if(uses)
      set_source_files_properties(${source} TARGET_DIRECTORY tensorshelf_${folder}
                                  PROPERTIES COMPILE_DEFINITIONS TENSORSHELF_MUTATIONS)
    endif()
  endforeach()
endforeach()
