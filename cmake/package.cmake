# What find_package(elsa_ext) finds: the targets elsa_ext::elsa_cpu and, where it was built, elsa_ext::elsa_cuda.
include(CMakePackageConfigHelpers)
set(package_folder elsa_ext/share/cmake/elsa_ext)

# A program refers to no symbol of these libraries: they register their ops when they are loaded. The linker would leave
# them out, whatever comes before them on its command line. That of macOS keeps what it is given; on Windows the program
# has to load them itself.
function(keep_when_linked library)
  if(NOT CMAKE_SYSTEM_NAME STREQUAL "Linux")
    return()
  endif()
  set(file $<TARGET_FILE:elsa_ext::${library}>)
  target_link_options(${library} INTERFACE
                      $<INSTALL_INTERFACE:LINKER:--push-state,--no-as-needed,${file},--pop-state>)
endfunction()

keep_when_linked(elsa_cpu)
# The public C++ API: headers that call the dispatcher.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/elsa DESTINATION elsa_ext/include)
target_include_directories(elsa_cpu INTERFACE $<INSTALL_INTERFACE:elsa_ext/include>)
if(TARGET elsa_cuda)
  keep_when_linked(elsa_cuda)
  target_link_libraries(elsa_cuda INTERFACE elsa_cpu)
  install(TARGETS elsa_cuda EXPORT elsa_ext DESTINATION elsa_ext)
endif()
install(TARGETS elsa_cpu EXPORT elsa_ext DESTINATION elsa_ext)
install(EXPORT elsa_ext FILE elsa_extConfig.cmake NAMESPACE elsa_ext:: DESTINATION ${package_folder})

set(version_file ${PROJECT_BINARY_DIR}/elsa_extConfigVersion.cmake)
write_basic_package_version_file(${version_file} VERSION ${SKBUILD_PROJECT_VERSION} COMPATIBILITY SameMinorVersion)
install(FILES ${version_file} DESTINATION ${package_folder})
