// Whether the kernels of this library run on a device. A C function: elsa_ext._library calls it by ctypes.
#include <cuda_runtime.h>

#include "../core/export.h"

namespace {
// Stands for all kernels: every file is compiled for the same architectures.
__global__ void any_kernel() {}
}  // namespace

// Why they do not run there, in the words of CUDA; null if they do, or if that cannot be known.
extern "C" ELSA_EXPORT const char* elsa_cuda_unusable(int device) {
  int previous = 0;
  if (cudaGetDevice(&previous) != cudaSuccess || cudaSetDevice(device) != cudaSuccess) {
    cudaGetLastError();
    return nullptr;
  }
  cudaFuncAttributes attributes;
  const cudaError_t status = cudaFuncGetAttributes(&attributes, any_kernel);
  cudaGetLastError();  // forgets it
  cudaSetDevice(previous);
  const bool known = status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
                     status == cudaErrorUnsupportedPtxVersion;
  return known ? cudaGetErrorString(status) : nullptr;
}
