# libelsa_cuda.
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
# nvcc says where its runtime library is; PyPI's keeps it in lib, and believes that it is in lib64.
execute_process(COMMAND ${nvcc} --dryrun -c ${PROJECT_SOURCE_DIR}/cmake/try.cu OUTPUT_VARIABLE said ERROR_VARIABLE said)
string(REGEX MATCHALL "-L[^\"\n]+" folders "${said}")
list(TRANSFORM folders REPLACE "^-L" "")
list(TRANSFORM folders REPLACE "/lib64$" "/lib" OUTPUT_VARIABLE folders_of_pypi)
find_library(cudart_static cudart_static HINTS ${folders} ${folders_of_pypi} NO_CACHE)
if(NOT cudart_static)
  fail("nvcc works, but libcudart_static.a was not found: install it, or leave the CUDA kernels out by ELSA_CUDA=off")
endif()
cmake_path(GET cudart_static PARENT_PATH cudart_folder)
set(ENV{LIBRARY_PATH} "${cudart_folder}:$ENV{LIBRARY_PATH}")
set(CMAKE_CUDA_RUNTIME_LIBRARY None)
enable_language(CUDA)
# As torch has its own: the file is a quarter as long, and needs a driver of CUDA 12.4 or newer.
if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
  add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:--compress-mode=size>)
endif()

# Stands in for the library of this name in a torch that was built for CUDA, which is loaded by the time that ours is.
set(stub ${CMAKE_CURRENT_BINARY_DIR}/stub/torch_cuda.cpp)
file(WRITE ${stub} "extern \"C\" int aoti_torch_get_current_cuda_stream(int, void**) { return 1; }\n")
add_library(torch_cuda_stub SHARED ${stub})
set_target_properties(torch_cuda_stub PROPERTIES OUTPUT_NAME torch_cuda LIBRARY_OUTPUT_DIRECTORY stub
                                                 CXX_VISIBILITY_PRESET default)

add_library(elsa_cuda SHARED)
add_op_library(elsa_cuda elsa CUDA src/torch/cuda)
add_sized_kernels(elsa_cuda src/cuda/platform)
target_sources(elsa_cuda PRIVATE src/cuda/usable.cu)
target_compile_definitions(elsa_cuda PRIVATE USE_CUDA)
# By file: as a target it would have to be installed with elsa_cuda.
target_link_libraries(elsa_cuda PRIVATE $<TARGET_FILE:torch_cuda_stub> ${cudart_static} rt dl pthread)
