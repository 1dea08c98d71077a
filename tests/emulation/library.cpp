// The ops of CUDA devices on CPU tensors, as torch.ops.elsa_emulated.
#include <cstring>
#include <device.cuh>
#include <mutex>

#include "../../src/ops/cuda_ops.h"

namespace elsa {
namespace {

// Of two results of one op: no element of theirs is left out.
bool same_bits(const Tensor& left, const Tensor& right) {
  return left.numel() == 0 || std::memcmp(left.data_ptr(), right.data_ptr(), left.numel() * left.element_size()) == 0;
}

template <typename... Tensors>
bool same_bits(const std::tuple<Tensors...>& left, const std::tuple<Tensors...>& right) {
  return [&]<std::size_t... Index>(std::index_sequence<Index...>) {
    return (same_bits(std::get<Index>(left), std::get<Index>(right)) && ...);
  }(std::index_sequence_for<Tensors...>());
}

// Whether every op runs in every order of threads, which must not show: where a barrier is at stake, at thrice the time.
bool in_every_order = false;

void every_order(bool on) { in_every_order = on; }

template <auto Op>
struct Emulated;

template <typename Result, typename... Arguments, Result (*Op)(Arguments...)>
struct Emulated<Op> {
  static Result call(Arguments... arguments) {
    using cuda::emulation::Order;
    static std::mutex one_at_a_time;
    const std::lock_guard lock(one_at_a_time);
    // The one that finds most. Where threads that run too early read what is not there yet, ascending order shows it
    // only if they come first, and descending order only if they come last; a random one, anew for every block, shows
    // either after a few blocks.
    cuda::emulation::order = Order::random;
    const Result result = Op(arguments...);
    if (!in_every_order) return result;
    for (const Order order : {Order::ascending, Order::descending}) {
      cuda::emulation::order = order;
      check(same_bits(Op(arguments...), result), "emulated", "the result depends on the order in which threads run");
    }
    return result;
  }
};

}  // namespace

STABLE_TORCH_LIBRARY(elsa_emulated, library) {
  library.def("every_order(bool on) -> ()");
  library.def(
      "ghost_head(Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
      "int kernel_size, int dilation=1, int stride=1) -> Tensor");
  library.def(
      "ghost_head_backward(Tensor grad, Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
      "int kernel_size, int dilation=1, int stride=1, bool need_value=True, bool need_attn=True, bool need_mul=True, "
      "bool need_add=True) -> (Tensor, Tensor, Tensor, Tensor)");
  library.def(
      "hadamard_attention(Tensor query, Tensor key, Tensor conv_weight, Tensor? conv_bias, Tensor proj_weight, "
      "Tensor? proj_bias, *, int heads, float scale=1.0, int dilation=1, int stride=1, int proj_groups=1) -> Tensor");
  library.def(
      "hadamard_attention_backward(Tensor grad, Tensor attn, Tensor query, Tensor key, Tensor conv_weight, "
      "Tensor? conv_bias, Tensor proj_weight, Tensor? proj_bias, *, int heads, float scale=1.0, int dilation=1, "
      "int stride=1, int proj_groups=1, bool need_query=True, bool need_key=True, bool need_conv_weight=True, "
      "bool need_conv_bias=True, bool need_proj_weight=True, bool need_proj_bias=True) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(elsa_emulated, CompositeExplicitAutograd, library) {
  library.impl("every_order", TORCH_BOX(&every_order));
}

STABLE_TORCH_LIBRARY_IMPL(elsa_emulated, CPU, library) {
  library.impl("ghost_head", TORCH_BOX(&Emulated<&cuda_ops::ghost_head>::call));
  library.impl("ghost_head_backward", TORCH_BOX(&Emulated<&cuda_ops::ghost_head_backward>::call));
  library.impl("hadamard_attention", TORCH_BOX(&Emulated<&cuda_ops::hadamard_attention>::call));
  library.impl("hadamard_attention_backward", TORCH_BOX(&Emulated<&cuda_ops::hadamard_attention_backward>::call));
}

}  // namespace elsa
