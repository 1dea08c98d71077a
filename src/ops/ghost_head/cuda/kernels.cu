// The passes of ghost_head on a CUDA device: which kernels take a call, and those that take any.
#include "../../../cuda/dispatch.cuh"
#include "any.cuh"
#include "borders.cuh"

namespace elsa::ghost_head {

template <int K>
void gather_sized(const Gather& op, void* stream);
template <int K>
void reduce_sized(const Reduce& op, void* stream);

namespace {

void gather_any(const Gather& op, void* stream) {
  const Grid grid = grid_of_results(op.out, op.shape.batch, op.shape.channels, 1);
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.adjoint, [&](auto adjoint) { launch(gather_any_kernel<T, adjoint.value>, grid, stream, op); });
  });
}

void gather_borders(const Gather& op, void* stream) {
  const Grid grid = grid_of_results(op.out, op.shape.batch, op.shape.channels, 1);
  choose_type(op.source.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    op.adjoint ? launch(gather_borders_kernel<T, Accumulator<T>, true>, grid, stream, op)
               : launch(gather_borders_kernel<T, T, false>, grid, stream, op);
  });
}

void reduce_any(const Reduce& op, void* stream) {
  const int64_t taps = op.shape.taps();
  choose_type(op.value.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.grad_attn.data) {
      const Grid grid = grid_of_results(op.grad_attn, op.shape.batch, op.shape.heads * taps, 1);
      launch(op.shape.square ? grad_attn_any_kernel<T> : grad_attn_borders_kernel<T>, grid, stream, op);
    }
    if (op.partial_mul || op.partial_add) {
      const int64_t partials = std::min(op.sums * op.chunks, most_blocks_yz);
      const Grid grid = grid_of_partials(op.shape.channels * taps, partials);
      launch(op.shape.square ? grad_matrices_any_kernel<T> : grad_matrices_borders_kernel<T>, grid, stream, op);
    }
  });
}

}  // namespace

void gather(const Gather& op, void* stream) {
  if (!op.shape.square) return gather_borders(op, stream);
  const bool plain = is_plain(op.shape, op.shape.x.dilation, op.shape.x.stride, op.out.dtype);
  const auto gather = [&](auto K) { gather_sized<K.value>(op, stream); };
  if (!plain || !KernelSizes::choose(op.shape.x.kernel_size, gather)) gather_any(op, stream);
}

void reduce(const Reduce& op, void* stream) {
  const bool plain = op.shape.square && is_plain(op.shape, op.shape.x.dilation, op.shape.x.stride, op.value.dtype);
  const auto reduce = [&](auto K) { reduce_sized<K.value>(op, stream); };
  if (!plain || !KernelSizes::choose(op.shape.x.kernel_size, reduce)) reduce_any(op, stream);
}

int64_t chunks(const Shape& shape, int64_t sums) {
  // Thread blocks on a multiprocessor, over all heads: as many as the kernels on the tensor cores have resident. The
  // number was not measured.
  constexpr int64_t enough = 4;
  return partial_results(enough * multiprocessors() / shape.heads, sums, shape.batch / sums * shape.out_height());
}

}  // namespace elsa::ghost_head
