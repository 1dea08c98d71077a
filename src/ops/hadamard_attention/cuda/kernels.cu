// The steps of hadamard_attention on a CUDA device: which kernels take a call, those that take any, and the softmax.
#include "../../../cuda/dispatch.cuh"
#include "../../../cuda/strips.cuh"
#include "any.cuh"
#include "softmax.cuh"

namespace elsa::hadamard_attention {

template <int K>
void conv_sized(const Conv& op, ConvStep step, void* stream);
template <int K>
void weight_gradient_sized(const WeightGradient& gradient, void* stream);

namespace {

// Whether the kernels with a compile-time K may take a call: they take the input channels of a group in quads.
bool has_quads(const Conv& op) {
  return is_plain(op.shape, op.shape.neighbourhood.dilation, op.shape.pooling, op.query.dtype) &&
         op.shape.group_width() % lane_channels == 0;
}

void conv_any(const Conv& op, ConvStep step, void* stream) {
  const Grid grid = grid_of_results(op.hidden, op.shape.batch, op.shape.channels, 1);
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    switch (step) {
      case ConvStep::forward:
        return launch(conv_any_kernel<T, ConvStep::forward>, grid, stream, op);
      case ConvStep::recompute:
        return launch(conv_any_kernel<T, ConvStep::recompute>, grid, stream, op);
      case ConvStep::adjoint:
        return launch(conv_any_kernel<T, ConvStep::adjoint>, grid, stream, op);
    }
  });
}

void weight_gradient_any(const WeightGradient& gradient, void* stream) {
  const Shape& shape = gradient.conv.shape;
  const Grid grid = grid_of_partials(shape.channels * shape.group_width() * shape.taps(), gradient.chunks);
  choose_type(gradient.conv.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    launch(weight_gradient_any_kernel<T>, grid, stream, gradient);
  });
}

}  // namespace

void conv(const Conv& op, ConvStep step, void* stream) {
  const auto conv = [&](auto K) { conv_sized<K.value>(op, step, stream); };
  const int64_t K = op.shape.neighbourhood.kernel_size;
  if (!has_quads(op) || !KernelSizes::choose(K, conv)) conv_any(op, step, stream);
}

void weight_gradient(const WeightGradient& gradient, void* stream) {
  const auto reduce = [&](auto K) { weight_gradient_sized<K.value>(gradient, stream); };
  const int64_t K = gradient.conv.shape.neighbourhood.kernel_size;
  if (!has_quads(gradient.conv) || !KernelSizes::choose(K, reduce)) weight_gradient_any(gradient, stream);
}

void softmax(const Softmax& op, void* stream) {
  const Grid grid = grid_of_results(op.out, op.shape.batch, op.shape.heads, softmax_lanes);
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.attn.data != nullptr, [&](auto backward) {
      choose(op.shape.taps() <= softmax_kept * softmax_lanes, [&](auto few) {
        constexpr int kept = few.value ? softmax_kept : 0;
        launch(softmax_kernel<SoftmaxTraits<T, backward.value, kept>>, grid, stream, op);
      });
    });
  });
}

int64_t chunks(const Shape& shape) {
  // Thread blocks on a multiprocessor, over all slices of the channels. One is resident, and a second can take its
  // place when it ends. The number was not measured.
  constexpr int64_t enough = 2;
  const int64_t slices = divide_up(shape.channels, slice_channels);
  return partial_results(enough * multiprocessors() / slices, 1, shape.batch * shape.out_height());
}

}  // namespace elsa::hadamard_attention
