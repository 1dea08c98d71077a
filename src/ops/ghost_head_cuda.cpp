// elsa::ghost_head on CUDA devices.
#include "cuda_device.h"
#include "ghost_head.h"

namespace elsa {
namespace {

void gather(const GhostHeadGather& op) { cuda::ghost_head_gather(op, current_stream()); }

void reduce(const GhostHeadReduce& op) { cuda::ghost_head_reduce(op, current_stream()); }

constexpr GhostHeadPasses passes{gather, reduce, cuda::ghost_head_chunks, sum_partials_by_torch};

Tensor forward(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
               const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride) {
  const OnDeviceOf guard(value);
  return ghost_head(passes, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
}

GhostHeadGradients backward(const Tensor& grad, const Tensor& value, const Tensor& attn,
                            const OptionalTensor& ghost_mul, const OptionalTensor& ghost_add, int64_t kernel_size,
                            int64_t dilation, int64_t stride, bool need_value, bool need_attn, bool need_mul,
                            bool need_add) {
  const OnDeviceOf guard(value);
  return ghost_head_backward(passes, grad, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride, need_value,
                             need_attn, need_mul, need_add);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(elsa, CUDA, library) {
  library.impl("ghost_head", TORCH_BOX(&forward));
  library.impl("ghost_head_backward", TORCH_BOX(&backward));
}

}  // namespace elsa
