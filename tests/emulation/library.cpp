// The CUDA passes of the ops on CPU tensors, as torch.ops.elsa_emulated.
#include <cstring>
#include <device.cuh>
#include <mutex>

#include "../../src/ops/ghost_head.h"

namespace elsa {
namespace {

const GhostHeadPasses passes{[](const GhostHeadGather& op) { cuda::ghost_head_gather(op, nullptr); },
                             [](const GhostHeadReduce& op) { cuda::ghost_head_reduce(op, nullptr); },
                             cuda::ghost_head_chunks, sum_partials_by_torch};

// Of two results of one op: no element of theirs is left out.
bool same_bits(const Tensor& left, const Tensor& right) {
  return std::memcmp(left.data_ptr(), right.data_ptr(), left.numel() * left.element_size()) == 0;
}

template <std::size_t... Index>
bool all_same_bits(const GhostHeadGradients& left, const GhostHeadGradients& right, std::index_sequence<Index...>) {
  return (same_bits(std::get<Index>(left), std::get<Index>(right)) && ...);
}
bool same_bits(const GhostHeadGradients& left, const GhostHeadGradients& right) {
  return all_same_bits(left, right, std::make_index_sequence<4>());
}

// What `op` gives, once in every order of threads, which must not show.
template <typename Op>
auto in_every_order(const char* name, const Op& op) {
  using cuda::emulation::Order;
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  cuda::emulation::order = Order::ascending;
  const auto result = op();
  for (const Order order : {Order::descending, Order::random}) {
    cuda::emulation::order = order;
    check(same_bits(op(), result), name, "the result depends on the order in which the threads run");
  }
  return result;
}

Tensor forward(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
               const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride) {
  return in_every_order("ghost_head", [&] {
    return ghost_head(passes, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
  });
}

GhostHeadGradients backward(const Tensor& grad, const Tensor& value, const Tensor& attn,
                            const OptionalTensor& ghost_mul, const OptionalTensor& ghost_add, int64_t kernel_size,
                            int64_t dilation, int64_t stride, bool need_value, bool need_attn, bool need_mul,
                            bool need_add) {
  return in_every_order("ghost_head_backward", [&] {
    return ghost_head_backward(passes, grad, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride,
                               need_value, need_attn, need_mul, need_add);
  });
}

}  // namespace

STABLE_TORCH_LIBRARY(elsa_emulated, library) {
  library.def(
      "ghost_head(Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
      "int kernel_size, int dilation=1, int stride=1) -> Tensor");
  library.def(
      "ghost_head_backward(Tensor grad, Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
      "int kernel_size, int dilation=1, int stride=1, bool need_value=True, bool need_attn=True, bool need_mul=True, "
      "bool need_add=True) -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(elsa_emulated, CPU, library) {
  library.impl("ghost_head", TORCH_BOX(&forward));
  library.impl("ghost_head_backward", TORCH_BOX(&backward));
}

}  // namespace elsa
