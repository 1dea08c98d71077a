// The passes of neighborhood_attention on a CUDA device: on patches, or for any call as logits, softmax and sum, each
// over the whole map.
#include "../../../cuda/local.cuh"
#include "patch_launch.cuh"

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

void forward_any(const Forward& op, void* stream) {
  const LocalShape& shape = op.shape;
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const SumPass pass{shape, op.value_channels, attention<T>(op, stream), op.value, op.out, 1};
    const Grid grid = grid_of_results(op.out, shape.batch, shape.heads * op.value_channels, 1);
    launch(sum_kernel<Accumulator<T>, T, T>, grid, stream, pass);
  });
}

void backward_any(const Backward& op, void* stream) {
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

// Call on_patches(Type<T>) if the kernels on patches take a pass, else any().
template <typename Pass, typename OnPatches, typename Any>
auto choose_kernels(const Pass& op, const OnPatches& on_patches, const Any& any) {
  switch (op.query.dtype) {
    case DType::float32:
      return patches_take<float>(op) ? on_patches(Type<float>()) : any();
    case DType::bfloat16:
      return patches_take<bfloat16>(op) ? on_patches(Type<bfloat16>()) : any();
    case DType::float16:
      return patches_take<float16>(op) ? on_patches(Type<float16>()) : any();
    default:
      return any();
  }
}

int64_t attention_numbers(const LocalShape& shape) {
  return shape.batch * shape.heads * shape.taps() * shape.height * shape.width;
}

}  // namespace

void forward(const Forward& op, void* stream) {
  choose_kernels(
      op, [&](auto type) { patch_forward<typename decltype(type)::type>(op, stream); },
      [&] { forward_any(op, stream); });
}

void backward(const Backward& op, void* stream) {
  choose_kernels(
      op, [&](auto type) { patch_backward<typename decltype(type)::type>(op, stream); },
      [&] { backward_any(op, stream); });
}

int64_t chunks(const LocalShape& shape) {
  // Thread blocks on a multiprocessor, over all heads: twice as many as are resident. The number was not measured.
  constexpr int64_t enough = 2 * backward_resident_blocks<bfloat16>;
  const int64_t wanted = divide_up(enough * multiprocessors(), shape.heads);
  return partial_results(wanted, shape.batch, shape.height);
}

int64_t forward_workspace(const Forward& op) {
  return choose_kernels(op, [&](auto) { return reach_numbers(op.shape); }, [&] { return attention_numbers(op.shape); });
}

int64_t backward_workspace(const Backward& op) {
  return choose_kernels(
      op, [&](auto) { return statistics_numbers(op.shape) + reach_numbers(op.shape); },
      [&] { return 2 * attention_numbers(op.shape); });
}

}  // namespace elsa::neighborhood_attention
