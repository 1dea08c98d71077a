// The steps of hadamard_attention on a CUDA device: which kernels take a call, those that take any, and the softmax.
#include "../../../cuda/dispatch.cuh"
#include "any.cuh"
#include "softmax.cuh"

namespace elsa::hadamard_attention {

using namespace cuda;

template <int K>
void conv_sized(const Conv& op, ConvStep step, void* stream);
template <int K>
void weight_gradient_sized(const WeightGradient& gradient, void* stream);

namespace {

bool has_kernels(const Conv& op) {
  constexpr int64_t lane_channels_of_a_group = 4;
  return is_plain(op.shape, op.shape.pooling, op.query.dtype) && op.shape.channels / op.shape.groups % lane_channels_of_a_group == 0;
}

void conv_any(const Conv& op, ConvStep step, void* stream) {
  const Grid grid = grid_of_results("hadamard_attention", op.hidden, op.shape.batch, op.shape.channels, 1);
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto start = [&](const char* name, auto kernel) { launch(name, kernel, grid, stream, op); };
    switch (step) {
      case ConvStep::forward:
        return start("hadamard_attention", conv_any_kernel<T, ConvStep::forward>);
      case ConvStep::recompute:
        return start("hadamard_attention_backward", conv_any_kernel<T, ConvStep::recompute>);
      case ConvStep::adjoint:
        return start("hadamard_attention_backward", conv_any_kernel<T, ConvStep::adjoint>);
    }
  });
}

void weight_gradient_any(const WeightGradient& gradient, void* stream) {
  const Shape& shape = gradient.conv.shape;
  const int64_t weights = shape.channels * (shape.channels / shape.groups) * shape.neighbourhood.kernel_size * shape.neighbourhood.kernel_size;
  const Grid grid = grid_of_elements(weights, gradient.chunks);
  choose_type(gradient.conv.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    launch("hadamard_attention_backward", weight_gradient_any_kernel<T>, grid, stream, gradient);
  });
}

}  // namespace

void conv(const Conv& op, ConvStep step, void* stream) {
  const auto conv = [&](auto K) { conv_sized<K.value>(op, step, stream); };
  if (!has_kernels(op) || !KernelSizes::choose(op.shape.neighbourhood.kernel_size, conv)) conv_any(op, step, stream);
}

void weight_gradient(const WeightGradient& gradient, void* stream) {
  const Conv& op = gradient.conv;
  const auto reduce = [&](auto K) { weight_gradient_sized<K.value>(gradient, stream); };
  if (!has_kernels(op) || !KernelSizes::choose(op.shape.neighbourhood.kernel_size, reduce)) weight_gradient_any(gradient, stream);
}

void softmax(const Softmax& op, void* stream) {
  constexpr int kept = 7;  // enough for K = 7
  const Grid grid = grid_of_results("hadamard_attention", op.out, op.shape.batch, op.shape.heads, softmax_lanes);
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.attn.data != nullptr, [&](auto backward) {
      choose(op.shape.neighbourhood.kernel_size * op.shape.neighbourhood.kernel_size <= kept * softmax_lanes, [&](auto few) {
        launch("hadamard_attention", softmax_kernel < T, backward.value, few.value ? kept : 0 >, grid, stream,
               op);
      });
    });
  });
}

int64_t chunks(const Shape& shape) {
  constexpr int64_t enough_blocks = 2, slot_channels = 32;  // on a multiprocessor; of a block
  const int64_t rows = divide_up(shape.channels, slot_channels);
  return partial_results(enough_blocks * multiprocessors() / rows, 1, shape.batch * shape.out_height());
}

}  // namespace elsa::hadamard_attention
