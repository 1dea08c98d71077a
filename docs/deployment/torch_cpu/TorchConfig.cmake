# The CPU half of a torch that was built for CUDA, for machines without the CUDA toolkit, which torch's own package asks for.
find_file(TORCH_CONFIG Torch/TorchConfig.cmake PATHS ${CMAKE_PREFIX_PATH} NO_DEFAULT_PATH REQUIRED)
get_filename_component(torch_root ${TORCH_CONFIG}/../../../.. ABSOLUTE)

add_library(torch INTERFACE IMPORTED)
target_include_directories(torch SYSTEM INTERFACE ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
target_link_libraries(torch INTERFACE ${torch_root}/lib/libtorch_cpu.so ${torch_root}/lib/libc10.so)
set(TORCH_LIBRARIES torch)
