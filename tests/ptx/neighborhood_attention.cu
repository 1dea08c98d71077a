// The kernels of neighborhood_attention that the tests interpret.
#include "../../src/ops/neighborhood_attention/cuda/patch_backward.cuh"

namespace elsa::neighborhood_attention {

#define INSTANTIATE(T, Vector)                                                         \
  template __global__ void forward_patch_kernel<T, Vector>(const PatchForward<T>);     \
  template __global__ void statistics_patch_kernel<T, Vector>(const PatchBackward<T>); \
  template __global__ void outputs_patch_kernel<T, Vector>(const PatchBackward<T>);    \
  template __global__ void sources_patch_kernel<T, Vector>(const PatchBackward<T>);

INSTANTIATE(float, true)
INSTANTIATE(bfloat16, true)
INSTANTIATE(float16, false)

}  // namespace elsa::neighborhood_attention
