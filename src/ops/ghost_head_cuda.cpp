// elsa::ghost_head on CUDA devices.
#include <cuda_device.h>

#include "cuda_ops.h"
#include "ghost_head.h"

namespace elsa::cuda_ops {
namespace {

void gather(const GhostHeadGather& op) { cuda::ghost_head_gather(op, current_stream()); }

void reduce(const GhostHeadReduce& op) { cuda::ghost_head_reduce(op, current_stream()); }

constexpr GhostHeadPasses passes{gather, reduce, cuda::ghost_head_chunks, sum_partials_by_torch};

}  // namespace

Tensor ghost_head(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
                  const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride) {
  const OnDeviceOf guard(value);
  return elsa::ghost_head(passes, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
}

GhostHeadGradients ghost_head_backward(const Tensor& grad, const Tensor& value, const Tensor& attn,
                                       const OptionalTensor& ghost_mul, const OptionalTensor& ghost_add,
                                       int64_t kernel_size, int64_t dilation, int64_t stride, bool need_value,
                                       bool need_attn, bool need_mul, bool need_add) {
  const OnDeviceOf guard(value);
  return elsa::ghost_head_backward(passes, grad, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride,
                                   need_value, need_attn, need_mul, need_add);
}

}  // namespace elsa::cuda_ops
