// The passes of ghost_head on a CUDA device: which kernels take a call, and those that take any.
#include "../../../cuda/dispatch.cuh"
#include "any.cuh"

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

void reduce_any(const Reduce& op, void* stream) {
  const int64_t taps = op.shape.taps();
  choose_type(op.value.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.grad_attn.data) {
      const Grid grid = grid_of_results(op.grad_attn, op.shape.batch, op.shape.heads * taps, 1);
      launch(grad_attn_any_kernel<T>, grid, stream, op);
    }
    if (op.partial_mul || op.partial_add) {
      const int64_t partials = std::min(op.sums * op.chunks, most_blocks_yz);
      launch(grad_matrices_any_kernel<T>, grid_of_partials(op.shape.channels * taps, partials), stream, op);
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
  // Thread blocks on a multiprocessor, over all heads: as many as the kernels on the tensor cores have resident. The
  // number was not measured.
  constexpr int64_t enough = 4;
  return partial_results(enough * multiprocessors() / shape.heads, sums, shape.batch / sums * shape.out_height());
}

}  // namespace elsa::ghost_head
