// elsa::ghost_head on the CPU, and the schemas of the op and its backward.
#include "ghost_head.h"

namespace elsa {
namespace {

void gather(const GhostHeadGather& op) {
  const cpu::Tiling tiling = cpu::tiling(op);
  const auto kernel = cpu::ghost_head().gather;
  parallel(op.shape.heads * op.shape.batch * tiling.count(),
           product({tiling.pixels(), op.shape.taps(), op.shape.head_channels()}),
           [&](int64_t first, int64_t last) { kernel(op, first, last); });
}

void reduce(const GhostHeadReduce& op) {
  const int64_t pixels = cpu::tiles(op) / op.chunks * cpu::tiling(op).pixels();
  const auto kernel = cpu::ghost_head().reduce;
  parallel(op.shape.heads * op.samples * op.chunks, product({pixels, op.shape.taps(), op.shape.head_channels()}),
           [&](int64_t first, int64_t last) { kernel(op, first, last); });
}

constexpr GhostHeadPasses passes{gather, reduce, cpu::chunks, sum_partials};

Tensor forward(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
               const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride) {
  return ghost_head(passes, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
}

GhostHeadGradients backward(const Tensor& grad, const Tensor& value, const Tensor& attn,
                            const OptionalTensor& ghost_mul, const OptionalTensor& ghost_add, int64_t kernel_size,
                            int64_t dilation, int64_t stride, bool need_value, bool need_attn, bool need_mul,
                            bool need_add) {
  return ghost_head_backward(passes, grad, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride, need_value,
                             need_attn, need_mul, need_add);
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(elsa, library) {
  library.def(
      "ghost_head(Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
      "int kernel_size, int dilation=1, int stride=1) -> Tensor");
  library.def(
      "ghost_head_backward(Tensor grad, Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
      "int kernel_size, int dilation=1, int stride=1, bool need_value=True, bool need_attn=True, bool need_mul=True, "
      "bool need_add=True) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(elsa, CPU, library) {
  library.impl("ghost_head", TORCH_BOX(&forward));
  library.impl("ghost_head_backward", TORCH_BOX(&backward));
}

}  // namespace elsa
