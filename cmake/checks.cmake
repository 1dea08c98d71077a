# What a build needs, looked for before anything depends on it, so that the last words are ours and name the remedy.

# Stop. The build backend repeats the message below all that CMake and pip write after it.
function(fail message)
  if(DEFINED ENV{ELSA_FAILURE_FILE})
    file(WRITE "$ENV{ELSA_FAILURE_FILE}" "${message}")
  endif()
  message(FATAL_ERROR " ${message}")
endfunction()

# Set `command` to the compiler of a language, with its options, as CMake would choose it; to nothing if there is none.
# `variable` is the environment's name for it, the rest are the programs to look for.
function(find_compiler command language variable)
  set(found "${CMAKE_${language}_COMPILER}")
  if(NOT found)
    separate_arguments(found UNIX_COMMAND "$ENV{${variable}}")
  endif()
  if(NOT found)
    find_program(program NAMES ${ARGN} PATHS ENV CUDA_PATH PATH_SUFFIXES bin NO_CACHE)
    if(program)
      set(found ${program})
    endif()
  endif()
  set(${command} "${found}" PARENT_SCOPE)
endfunction()

# Set `problem` to the first error of a command that compiles `source`, to nothing if it does.
function(try_compiler problem source)
  execute_process(COMMAND ${ARGN} -c ${PROJECT_SOURCE_DIR}/cmake/${source} -o ${PROJECT_BINARY_DIR}/${source}.o
                  OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE result)
  set(${problem} "" PARENT_SCOPE)
  if(NOT result EQUAL 0)
    string(REGEX MATCH "[^\n]*(error|fatal)[^\n]*" error "${output}")
    if(NOT error)
      string(REGEX MATCH "[^ \n][^\n]*" error "${output}")
    endif()
    if(NOT error)
      string(REGEX REPLACE "^([0-9]+)$" "exit code \\1" error "${result}")
    endif()
    # It becomes part of a command line, on which these would need care.
    string(REGEX REPLACE "[\"\\;#$`]+" " " error "${error}")
    string(STRIP "${error}" error)
    set(${problem} "${error}" PARENT_SCOPE)
  endif()
endfunction()

