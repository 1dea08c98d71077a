// The passes of ghost_head on a CUDA device: which kernels take a call, and those that take any.
#include <algorithm>

#include "dispatch.cuh"
#include "ghost_head_any.cuh"

namespace elsa::cuda {

template <int K>
void ghost_head_gather_with(const GhostHeadGather& op, void* stream);
template <int K>
void ghost_head_reduce_with(const GhostHeadReduce& op, void* stream);

namespace {

void gather_any(const GhostHeadGather& op, void* stream) {
  const Grid grid = grid_of_results("ghost_head", op.out, op.shape.batch, op.shape.channels, 1);
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.adjoint,
           [&](auto adjoint) { launch("ghost_head", ghost_head_gather_any<T, adjoint.value>, grid, stream, op); });
  });
}

void reduce_any(const GhostHeadReduce& op, void* stream) {
  constexpr const char* name = "ghost_head_backward";
  constexpr int64_t most_grid_rows = 65535;
  const int64_t taps = op.shape.taps(), partials = std::min(op.samples * op.chunks, most_grid_rows);
  choose_type(op.value.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.grad_attn.data) {
      launch(name, ghost_head_grad_attn_any<T>,
             grid_of_results(name, op.grad_attn, op.shape.batch, op.shape.heads * taps, 1), stream, op);
    }
    if (op.partial_mul || op.partial_add) {
      launch(name, ghost_head_grad_matrices_any<T>, grid_of_elements(op.shape.channels * taps, partials), stream, op);
    }
  });
}

}  // namespace

void ghost_head_gather(const GhostHeadGather& op, void* stream) {
  const bool plain = is_plain(op.shape, op.out.dtype);
  const auto gather = [&](auto K) { ghost_head_gather_with<K.value>(op, stream); };
  if (!plain || !KernelSizes::choose(op.shape.kernel_size, gather)) gather_any(op, stream);
}

void ghost_head_reduce(const GhostHeadReduce& op, void* stream) {
  const bool plain = is_plain(op.shape, op.value.dtype);
  const auto reduce = [&](auto K) { ghost_head_reduce_with<K.value>(op, stream); };
  if (!plain || !KernelSizes::choose(op.shape.kernel_size, reduce)) reduce_any(op, stream);
}

int64_t ghost_head_chunks(const GhostHeadReduce& op) {
  constexpr int64_t enough_blocks = 4;  // on a multiprocessor, over all heads
  return partial_results(enough_blocks * multiprocessors() / op.shape.heads, op.samples,
                         op.shape.batch / op.samples * op.grad.height);
}

}  // namespace elsa::cuda
