// The passes of neighborhood_logits on a CUDA device.
#include "../../../cuda/dispatch.cuh"
#include "../../../cuda/local.cuh"
#include "passes.h"

namespace elsa::neighborhood_logits {

using namespace cuda;

void forward(const Forward& op, void* stream) {
  const LocalShape& shape = op.shape;
  const ProductPass pass{shape, shape.channels, op.query, op.key, op.logits, op.bias, shape.scale, false};
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    launch(product_kernel<T, T>, grid_of_results(op.logits, shape.batch, shape.heads * shape.taps(), 1), stream, pass);
  });
}

void backward(const Backward& op, void* stream) {
  const LocalShape& shape = op.shape;
  const int64_t channels = shape.heads * shape.channels;
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.grad_query.data) {
      const SumPass pass{shape, shape.channels, op.grad, op.key, op.grad_query, shape.scale};
      launch(sum_kernel<T, T, T>, grid_of_results(op.grad_query, shape.batch, channels, 1), stream, pass);
    }
    if (op.sum_key.data) {
      const SumPass pass{shape, shape.channels, op.grad, op.query, op.sum_key, shape.scale};
      const Grid grid = grid_of_results(op.sum_key, shape.batch, channels, 1);
      launch(adjoint_sum_kernel<T, T, Accumulator<T>>, grid, stream, pass);
    }
    if (op.partial_bias) {
      const BiasPass pass{shape, op.bias, op.grad, op.partial_bias, op.chunks};
      const int64_t partials = std::min(shape.batch * op.chunks, most_blocks_yz);
      launch(bias_kernel<T>, grid_of_partials(shape.heads * op.bias.head_size(shape), partials), stream, pass);
    }
  });
}

int64_t chunks(const LocalShape& shape) { return partial_results(multiprocessors(), shape.batch, shape.height); }

}  // namespace elsa::neighborhood_logits
