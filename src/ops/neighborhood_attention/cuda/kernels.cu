// The passes of neighborhood_attention on a CUDA device: logits, softmax and sum, each over the whole map.
#include "../../../cuda/dispatch.cuh"
#include "../../../cuda/local.cuh"
#include "passes.h"

namespace elsa::neighborhood_attention {

using namespace cuda;

namespace {

// The map of the taps in the workspace, contiguous.
MapView taps_in(void* data, DType dtype, const LocalShape& shape) {
  const int64_t plane = shape.height * shape.width;
  return {data, accumulation(dtype), shape.height, shape.width, shape.heads * shape.taps() * plane, plane, shape.width,
          1};
}

template <typename T, typename Pass>
MapView attention(const Pass& op, void* stream) {
  using A = Accumulator<T>;
  const LocalShape& shape = op.shape;
  const MapView attn = taps_in(op.workspace, op.query.dtype, shape);
  const ProductPass logits{shape, shape.channels, op.query, op.key, attn, op.bias, shape.scale, false};
  launch(product_kernel<T, A>, grid_of_results(attn, shape.batch, shape.heads * shape.taps(), 1), stream, logits);
  launch(softmax_kernel<A>, grid_of_results(attn, shape.batch, shape.heads, 1), stream, SoftmaxPass{shape, attn});
  return attn;
}

}  // namespace

void forward(const Forward& op, void* stream) {
  const LocalShape& shape = op.shape;
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const SumPass pass{shape, op.value_channels, attention<T>(op, stream), op.value, op.out, 1};
    const Grid grid = grid_of_results(op.out, shape.batch, shape.heads * op.value_channels, 1);
    launch(sum_kernel<Accumulator<T>, T, T>, grid, stream, pass);
  });
}

void backward(const Backward& op, void* stream) {
  const LocalShape& shape = op.shape;
  const int64_t channels = shape.heads * shape.channels, value_channels = shape.heads * op.value_channels;
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using A = Accumulator<T>;
    const MapView attn = attention<T>(op, stream);
    if (op.sum_value.data) {
      const SumPass pass{shape, op.value_channels, attn, op.grad, op.sum_value, 1};
      const Grid grid = grid_of_results(op.sum_value, shape.batch, value_channels, 1);
      launch(adjoint_sum_kernel<A, T, A>, grid, stream, pass);
    }
    if (!op.grad_query.data && !op.sum_key.data && !op.partial_bias) return;
    const MapView grad =
        taps_in(static_cast<A*>(op.workspace) + shape.batch * attn.batch_stride, op.query.dtype, shape);
    const ProductPass products{shape, op.value_channels, op.grad, op.value, grad, {}, 1, true};
    launch(product_kernel<T, A>, grid_of_results(grad, shape.batch, shape.heads * shape.taps(), 1), stream, products);
    const Grid outputs = grid_of_results(grad, shape.batch, shape.heads, 1);
    launch(softmax_backward_kernel<A>, outputs, stream, SoftmaxBackwardPass{shape, attn, grad});
    if (op.grad_query.data) {
      const SumPass pass{shape, shape.channels, grad, op.key, op.grad_query, shape.scale};
      launch(sum_kernel<A, T, T>, grid_of_results(op.grad_query, shape.batch, channels, 1), stream, pass);
    }
    if (op.sum_key.data) {
      const SumPass pass{shape, shape.channels, grad, op.query, op.sum_key, shape.scale};
      launch(adjoint_sum_kernel<A, T, A>, grid_of_results(op.sum_key, shape.batch, channels, 1), stream, pass);
    }
    if (op.partial_bias) {
      const BiasPass pass{shape, op.bias, grad, op.partial_bias, op.chunks};
      const int64_t partials = std::min(shape.batch * op.chunks, most_blocks_yz);
      launch(bias_kernel<A>, grid_of_partials(shape.heads * op.bias.head_size(shape), partials), stream, pass);
    }
  });
}

int64_t chunks(const LocalShape& shape) { return partial_results(multiprocessors(), shape.batch, shape.height); }

int64_t workspace(const LocalShape& shape, bool is_backward) {
  const int64_t taps = shape.batch * shape.heads * shape.taps() * shape.height * shape.width;
  return is_backward ? 2 * taps : taps;
}

}  // namespace elsa::neighborhood_attention
