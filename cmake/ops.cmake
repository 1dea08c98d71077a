# elsa_add_op(<op>) adds an op to every library that has ops, with the files that it finds in src/ops/<op>:
#
#   op.cpp           its schema, checks, allocation and registration: in every library
#   reference.cpp    the oracle
#   cpu/launch.cpp   the op on the CPU, and cpu/plan.cpp if there is one
#   cpu/kernels.cpp  its kernels, compiled once per instruction set
#   cuda/launch.cpp  the op on a CUDA device
#   cuda/kernels.cu  its kernels for that, and cuda/sized.cu, compiled once per kernel size, if there is one
set(common_sources src/torch/dispatcher.cpp src/torch/errors.cpp src/torch/local_attention.cpp src/torch/sums.cpp
    src/torch/tensor.cpp)
list(TRANSFORM common_sources PREPEND ${PROJECT_SOURCE_DIR}/)
set(ELSA_KERNEL_SIZES 3 5 7 9 11 13 CACHE STRING "Kernel sizes K that have CUDA kernels of their own")
string(REPLACE ";" ", " kernel_sizes "${ELSA_KERNEL_SIZES}")
set(kernel_sizes_folder ${PROJECT_BINARY_DIR}/kernel_sizes)
file(CONFIGURE OUTPUT ${kernel_sizes_folder}/kernel_sizes.h CONTENT "#define ELSA_KERNEL_SIZES @kernel_sizes@\n" @ONLY)

# A library of ops for a dispatch key; `platform` is the folder of its platform.h.
function(add_op_library library namespace key platform)
  target_sources(${library} PRIVATE ${common_sources})
  target_compile_definitions(${library} PRIVATE ELSA_LIBRARY=${namespace} ELSA_KEY=${key})
  target_include_directories(${library} PRIVATE ${platform})
  target_link_libraries(${library} PRIVATE torch_stable)
endfunction()

# The kernels of a library of CUDA ops that are compiled once per kernel size; `device` is the folder of device.cuh.
function(add_sized_kernels library device)
  target_include_directories(${library} PRIVATE ${device} ${kernel_sizes_folder})
  foreach(size ${ELSA_KERNEL_SIZES})
    add_library(${library}_k${size} OBJECT EXCLUDE_FROM_ALL)
    target_compile_definitions(${library}_k${size} PRIVATE ELSA_KERNEL_SIZE=${size})
    target_include_directories(${library}_k${size} PRIVATE ${device} ${kernel_sizes_folder})
    target_link_libraries(${library} PRIVATE ${library}_k${size})
  endforeach()
endfunction()

# The CPU kernels of all ops for one instruction set. Contracting a * b + c is part of the design: it halves the rounding.
function(add_cpu_kernels capability vector_bytes)
  add_library(cpu_${capability} OBJECT)
  target_compile_definitions(cpu_${capability} PRIVATE ELSA_CAPABILITY=${capability} ELSA_VECTOR_BYTES=${vector_bytes})
  target_compile_options(cpu_${capability} PRIVATE -ffp-contract=fast ${ARGN})
  target_link_libraries(elsa_cpu PRIVATE cpu_${capability})
  set(cpu_kernels ${cpu_kernels} cpu_${capability} PARENT_SCOPE)
endfunction()

add_library(elsa_cpu SHARED src/cpu/build_info.cpp src/cpu/capability.cpp src/cpu/local/plan.cpp src/core/launch_plan.cpp)
add_op_library(elsa_cpu elsa CPU src/torch/cpu)
if(WIN32)
  target_link_options(elsa_cpu PRIVATE --rtlib=compiler-rt)  # has what asks the CPU for its instruction sets
endif()
# The instruction sets of src/cpu/capability.h: by what the compiler compiles for, which the machine does not tell.
include(CheckCXXSymbolExists)
check_cxx_symbol_exists(__x86_64__ cstddef for_x86)
check_cxx_symbol_exists(__aarch64__ cstddef for_aarch64)
if(for_aarch64)
  add_cpu_kernels(neon 16)
else()
  add_cpu_kernels(baseline 16)
endif()
if(for_x86)
  add_cpu_kernels(avx2 32 -mavx2 -mfma -mf16c)
  add_cpu_kernels(avx512 64 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma)
endif()

# CUDA kernels need nvcc, and no torch that was built for CUDA.
if(NOT cuda_missing)
  include(cmake/cuda.cmake)
endif()
add_subdirectory(tests/emulation)

# _C for the Python that builds, and for those of ELSA_PYTHONS, so that one wheel has it for many.
set(ELSA_PYTHONS "" CACHE STRING "More Pythons, programs or paths, for which _C is compiled")
pybind11_add_module(_C src/bindings/module.cpp)
set(compiled_parts _C)
set(of_python "import sysconfig as s; print(s.get_config_var('EXT_SUFFIX'), s.get_path('include'), sep=';')")
foreach(python IN LISTS ELSA_PYTHONS)
  execute_process(COMMAND ${python} -c "${of_python}" OUTPUT_VARIABLE about ERROR_VARIABLE error RESULT_VARIABLE result
                  OUTPUT_STRIP_TRAILING_WHITESPACE)
  list(POP_FRONT about suffix headers)
  if(NOT result EQUAL 0 OR NOT EXISTS "${headers}/Python.h")
    fail("ELSA_PYTHONS has ${python}, which does not run or has no Python.h (${headers} ${error})")
  elseif(suffix STREQUAL PYTHON_MODULE_EXTENSION OR TARGET _C${suffix})
    continue()
  endif()
  add_library(_C${suffix} MODULE src/bindings/module.cpp)
  set_target_properties(_C${suffix} PROPERTIES PREFIX "" OUTPUT_NAME _C SUFFIX ${suffix})
  target_include_directories(_C${suffix} SYSTEM PRIVATE ${headers})
  target_link_libraries(_C${suffix} PRIVATE pybind11::headers)
  list(APPEND compiled_parts _C${suffix})
endforeach()
foreach(part IN LISTS compiled_parts)
  target_link_libraries(${part} PRIVATE elsa_cpu)
endforeach()

function(elsa_add_op op)
  set(folder ${PROJECT_SOURCE_DIR}/src/ops/${op})
  foreach(part IN LISTS compiled_parts)
    target_sources(${part} PRIVATE ${folder}/reference.cpp)
  endforeach()
  target_sources(elsa_cpu PRIVATE ${folder}/op.cpp ${folder}/cpu/launch.cpp)
  if(EXISTS ${folder}/cpu/plan.cpp)
    target_sources(elsa_cpu PRIVATE ${folder}/cpu/plan.cpp)
  endif()
  foreach(library IN LISTS cpu_kernels)
    target_sources(${library} PRIVATE ${folder}/cpu/kernels.cpp)
  endforeach()
  foreach(library elsa_cuda elsa_emulated)
    if(TARGET ${library})
      target_sources(${library} PRIVATE ${folder}/op.cpp ${folder}/cuda/launch.cpp ${folder}/cuda/kernels.cu)
      if(EXISTS ${folder}/cuda/sized.cu)
        foreach(size ${ELSA_KERNEL_SIZES})
          target_sources(${library}_k${size} PRIVATE ${folder}/cuda/sized.cu)
        endforeach()
      endif()
    endif()
  endforeach()
  # The tests compile the CUDA kernels as C++.
  set_source_files_properties(${folder}/cuda/kernels.cu ${folder}/cuda/sized.cu TARGET_DIRECTORY elsa_emulated
                              PROPERTIES LANGUAGE CXX)
endfunction()
