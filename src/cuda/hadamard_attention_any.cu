// The steps of hadamard_attention on a CUDA device: which kernels take a call, those that take any, and the softmax.
#include "dispatch.cuh"
#include "hadamard_any.cuh"
#include "hadamard_softmax.cuh"

namespace elsa::cuda {

template <int K>
void hadamard_conv_with(const HadamardConv& op, ConvStep step, void* stream);
template <int K>
void hadamard_weight_gradient_with(const HadamardWeightGradient& gradient, void* stream);

namespace {

bool has_kernels(const HadamardConv& op) {
  constexpr int64_t lane_channels_of_a_group = 4;
  return is_plain(op.shape, op.query.dtype) && op.shape.channels / op.shape.groups % lane_channels_of_a_group == 0;
}

void conv_any(const HadamardConv& op, ConvStep step, void* stream) {
  const Grid grid = grid_of_results("hadamard_attention", op.hidden, op.shape.batch, op.shape.channels, 1);
  choose_type(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto start = [&](const char* name, auto kernel) { launch(name, kernel, grid, stream, op); };
    switch (step) {
      case ConvStep::forward:
        return start("hadamard_attention", hadamard_conv_any<T, ConvStep::forward>);
      case ConvStep::recompute:
        return start("hadamard_attention_backward", hadamard_conv_any<T, ConvStep::recompute>);
      case ConvStep::adjoint:
        return start("hadamard_attention_backward", hadamard_conv_any<T, ConvStep::adjoint>);
    }
  });
}

void weight_gradient_any(const HadamardWeightGradient& gradient, void* stream) {
  const HadamardShape& shape = gradient.conv.shape;
  const int64_t weights = shape.channels * (shape.channels / shape.groups) * shape.kernel_size * shape.kernel_size;
  const Grid grid = grid_of_elements(weights, gradient.chunks);
  choose_type(gradient.conv.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    launch("hadamard_attention_backward", hadamard_weight_gradient_any<T>, grid, stream, gradient);
  });
}

}  // namespace

void hadamard_conv(const HadamardConv& op, ConvStep step, void* stream) {
  const auto conv = [&](auto K) { hadamard_conv_with<K.value>(op, step, stream); };
  if (!has_kernels(op) || !KernelSizes::choose(op.shape.kernel_size, conv)) conv_any(op, step, stream);
}

void hadamard_weight_gradient(const HadamardWeightGradient& gradient, void* stream) {
  const HadamardConv& op = gradient.conv;
  const auto reduce = [&](auto K) { hadamard_weight_gradient_with<K.value>(gradient, stream); };
  if (!has_kernels(op) || !KernelSizes::choose(op.shape.kernel_size, reduce)) weight_gradient_any(gradient, stream);
}

void hadamard_softmax(const HadamardSoftmax& op, void* stream) {
  constexpr int kept = 7;  // enough for K = 7
  const Grid grid = grid_of_results("hadamard_attention", op.out, op.shape.batch, op.shape.heads, softmax_lanes);
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.attn.data != nullptr, [&](auto backward) {
      choose(op.shape.kernel_size * op.shape.kernel_size <= kept * softmax_lanes, [&](auto few) {
        launch("hadamard_attention", hadamard_softmax_kernel < T, backward.value, few.value ? kept : 0 >, grid, stream,
               op);
      });
    });
  });
}

int64_t hadamard_chunks(const HadamardConv& op) {
  constexpr int64_t enough_blocks = 2, slot_channels = 32;  // on a multiprocessor; of a block
  const int64_t rows = (op.shape.channels + slot_channels - 1) / slot_channels;
  return partial_results(enough_blocks * multiprocessors() / rows, 1, op.shape.batch * op.hidden.height);
}

}  // namespace elsa::cuda
