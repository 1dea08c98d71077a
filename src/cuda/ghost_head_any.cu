// The passes of ghost_head on a CUDA device: which kernels take a call, and those that take any.
#include <kernel_sizes.h>

#include <algorithm>

#include "dispatch.cuh"
#include "ghost_head_any.cuh"

namespace elsa::cuda {

template <int K>
void ghost_head_gather_with(const GhostHeadGather& op, void* stream);
template <int K>
void ghost_head_reduce_with(const GhostHeadReduce& op, void* stream);

namespace {

template <int... Sizes>
struct KernelSizes {
  // Call f(std::integral_constant<int, K>) if there are kernels for K = `size`; tell whether there are.
  template <typename Function>
  static bool choose(int64_t size, const Function& function) {
    return ((size == Sizes && (function(std::integral_constant<int, Sizes>()), true)) || ...);
  }
};
using Sizes = KernelSizes<ELSA_KERNEL_SIZES>;

// Whether 32 bits hold every row and column, also outside the map, and the number of all pixels; and a grid its rows.
bool is_small(const GhostHeadShape& shape) {
  constexpr int64_t most_rows = 1 << 24, most_pixels = 1 << 30, most_grid_rows = 65535;
  return shape.height <= most_rows && shape.width <= most_rows &&
         shape.batch <= most_pixels / (shape.height * shape.width) && shape.channels <= most_grid_rows;
}

int64_t any_blocks(int64_t elements) {
  constexpr int64_t enough_blocks = 32;  // on a multiprocessor
  return std::clamp<int64_t>((elements + any_threads - 1) / any_threads, 1, enough_blocks * multiprocessors());
}

void gather_any(const GhostHeadGather& op, void* stream) {
  const Grid grid{any_blocks(op.shape.batch * op.shape.channels * op.out.height * op.out.width), 1, 1, any_threads, 0};
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.adjoint,
           [&](auto adjoint) { launch("ghost_head", ghost_head_gather_any<T, adjoint.value>, grid, stream, op); });
  });
}

void reduce_any(const GhostHeadReduce& op, void* stream) {
  const int64_t taps = op.shape.taps(), partials = op.samples * op.chunks;
  choose_type(op.value.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.grad_attn.data) {
      const int64_t elements = op.shape.batch * op.shape.heads * taps * op.grad.height * op.grad.width;
      launch("ghost_head_backward", ghost_head_grad_attn_any<T>, {any_blocks(elements), 1, 1, any_threads, 0}, stream,
             op);
    }
    if (op.partial_mul || op.partial_add) {
      launch("ghost_head_backward", ghost_head_grad_matrices_any<T>,
             {any_blocks(op.shape.channels * taps), std::min<int64_t>(partials, 65535), 1, any_threads, 0}, stream, op);
    }
  });
}

}  // namespace

void ghost_head_gather(const GhostHeadGather& op, void* stream) {
  const bool plain = op.shape.stride == 1 && op.out.dtype != DType::float64 && is_small(op.shape);
  const auto gather = [&](auto K) { ghost_head_gather_with<K.value>(op, stream); };
  if (!plain || !Sizes::choose(op.shape.kernel_size, gather)) gather_any(op, stream);
}

void ghost_head_reduce(const GhostHeadReduce& op, void* stream) {
  const bool plain = op.shape.stride == 1 && op.value.dtype != DType::float64 && is_small(op.shape);
  const auto reduce = [&](auto K) { ghost_head_reduce_with<K.value>(op, stream); };
  if (!plain || !Sizes::choose(op.shape.kernel_size, reduce)) reduce_any(op, stream);
}

int64_t ghost_head_chunks(const GhostHeadReduce& op) {
  constexpr int64_t enough_blocks = 2;  // on a multiprocessor, over all heads
  const int64_t blocks = enough_blocks * multiprocessors() / (op.shape.heads * op.samples);
  return std::clamp<int64_t>(blocks, 1, op.shape.batch / op.samples * op.grad.height);
}

}  // namespace elsa::cuda
