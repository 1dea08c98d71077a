# libelsa_cuda.
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
enable_language(CUDA)
find_package(CUDAToolkit)
if(NOT TARGET CUDA::cudart_static)
  fail("nvcc works, but libcudart_static.a was not found: install it, or leave the CUDA kernels out by ELSA_CUDA=off")
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
target_compile_definitions(elsa_cuda PRIVATE USE_CUDA)
# By file: as a target it would have to be installed with elsa_cuda.
target_link_libraries(elsa_cuda PRIVATE $<TARGET_FILE:torch_cuda_stub> CUDA::cudart_static)
