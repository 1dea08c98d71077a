// The host's version of the header that knows the CUDA device and stream: there are none. Instead, an op may run once
// in every order of threads, which must not show in its result.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstring>
#include <device.cuh>
#include <stdexcept>
#include <tuple>

namespace elsa {
namespace emulation {

using torch::stable::Tensor;

// Of two results of one op: no element of theirs is left out.
inline bool same_bits(const Tensor& left, const Tensor& right) {
  return left.numel() == 0 || std::memcmp(left.data_ptr(), right.data_ptr(), left.numel() * left.element_size()) == 0;
}

template <typename... Tensors>
bool same_bits(const std::tuple<Tensors...>& left, const std::tuple<Tensors...>& right) {
  return [&]<std::size_t... Index>(std::index_sequence<Index...>) {
    return (same_bits(std::get<Index>(left), std::get<Index>(right)) && ...);
  }(std::index_sequence_for<Tensors...>());
}

}  // namespace emulation

template <typename Work>
auto on_device_of(const torch::stable::Tensor&, const Work& work) {
  using namespace cuda::emulation;
  const std::lock_guard lock(one_op_at_a_time);
  order = Order::descending;
  const auto result = work();
  for (const Order other : {Order::ascending, Order::random}) {
    if (!every_order) break;
    order = other;
    if (!emulation::same_bits(work(), result)) {
      throw std::runtime_error("the result depends on the order in which threads run");
    }
  }
  return result;
}

inline void* current_stream() { return nullptr; }

}  // namespace elsa
