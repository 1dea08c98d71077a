// The passes of ghost_head on a CUDA device: which kernels take a call, and those that take any.
#include <algorithm>

#include "../../../cuda/dispatch.cuh"
#include "any.cuh"

namespace elsa::ghost_head {

using namespace cuda;

template <int K>
void gather_sized(const Gather& op, void* stream);
template <int K>
void reduce_sized(const Reduce& op, void* stream);

namespace {

void gather_any(const Gather& op, void* stream) {
  const Grid grid = grid_of_results("ghost_head", op.out, op.shape.batch, op.shape.channels, 1);
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.adjoint,
           [&](auto adjoint) { launch("ghost_head", gather_any_kernel<T, adjoint.value>, grid, stream, op); });
  });
}

void reduce_any(const Reduce& op, void* stream) {
  constexpr const char* name = "ghost_head_backward";
  constexpr int64_t most_grid_rows = 65535;
  const int64_t taps = op.shape.taps(), partials = std::min(op.sums * op.chunks, most_grid_rows);
  choose_type(op.value.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.grad_attn.data) {
      launch(name, grad_attn_any_kernel<T>,
             grid_of_results(name, op.grad_attn, op.shape.batch, op.shape.heads * taps, 1), stream, op);
    }
    if (op.partial_mul || op.partial_add) {
      launch(name, grad_matrices_any_kernel<T>, grid_of_elements(op.shape.channels * taps, partials), stream, op);
    }
  });
}

}  // namespace

void gather(const Gather& op, void* stream) {
  const bool plain = is_plain(op.shape, op.shape.neighbourhood.stride, op.out.dtype);
  const auto gather = [&](auto K) { gather_sized<K.value>(op, stream); };
  if (!plain || !KernelSizes::choose(op.shape.neighbourhood.kernel_size, gather)) gather_any(op, stream);
}

void reduce(const Reduce& op, void* stream) {
  const bool plain = is_plain(op.shape, op.shape.neighbourhood.stride, op.value.dtype);
  const auto reduce = [&](auto K) { reduce_sized<K.value>(op, stream); };
  if (!plain || !KernelSizes::choose(op.shape.neighbourhood.kernel_size, reduce)) reduce_any(op, stream);
}

int64_t chunks(const Shape& shape, int64_t sums) {
  constexpr int64_t enough_blocks = 4;  // on a multiprocessor, over all heads
  return partial_results(enough_blocks * multiprocessors() / shape.heads, sums,
                         shape.batch / sums * shape.out_height());
}

}  // namespace elsa::ghost_head
