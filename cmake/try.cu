// Compiles where nvcc, its headers and its host compiler fit together.
#include <cuda_fp16.h>

__global__ void kernel(float* number) { *number = __half2float(__float2half(*number)); }
