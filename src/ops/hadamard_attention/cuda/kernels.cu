// The steps of hadamard_attention on a CUDA device: which kernels take a call, and those that take any.
#include "../../../cuda/dispatch.cuh"
#include "any.cuh"
#include "softmax.cuh"

namespace elsa::hadamard_attention {

template <int K>
void conv_sized(const Conv& op, ConvStep step, void* stream);
template <int K>
void weight_gradient_sized(const WeightGradient& gradient, void* stream);
template <int K>
void softmax_sized(const Softmax& op, void* stream);

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

// Whether the softmax with a compile-time K may take a call: pixels are counted in 32 bits, and whole runs of two maps
// are in shared memory, with a sum for each channel.
bool has_runs(const Softmax& op) {
  constexpr int64_t most_pixels = 1 << 30;
  const int64_t channel_bytes = 2 * warp_lanes * size_of(op.out.dtype) + size_of(DType::float32);
  return op.out.dtype != DType::float64 && op.shape.batch <= most_pixels / (op.out.height * op.out.width) &&
         op.shape.attn_channels() * channel_bytes <= int64_t(most_shared_bytes);
}

void softmax_any(const Softmax& op, void* stream) {
  const Grid grid = grid_of_results(op.out, op.shape.batch, op.shape.heads, softmax_lanes);
  choose_type(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(op.attn.data != nullptr,
           [&](auto backward) { launch(softmax_any_kernel<T, backward.value>, grid, stream, op); });
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
  const auto softmax = [&](auto K) { softmax_sized<K.value>(op, stream); };
  const int64_t K = op.shape.neighbourhood.kernel_size;
  if (!has_runs(op) || !KernelSizes::choose(K, softmax)) softmax_any(op, stream);
}

int64_t chunks(const Shape& shape) {
  // Thread blocks on a multiprocessor, over all slices of the channels. One is resident, and a second can take its
  // place when it ends. The number was not measured.
  constexpr int64_t enough = 2;
  const int64_t slices = divide_up(shape.channels, slice_channels);
  return partial_results(enough * multiprocessors() / slices, 1, shape.batch * shape.out_height());
}

int64_t bias_chunks(const Softmax& op) {
  // Warps on a multiprocessor: with K = 7 and 3 heads in 16 bits its shared memory holds 11. The number was not
  // measured.
  constexpr int64_t enough = 11;
  const bool is_taken = has_runs(op) && KernelSizes::choose(op.shape.neighbourhood.kernel_size, [](auto) {});
  const int64_t pixels = op.shape.batch * op.out.height * op.out.width;
  return is_taken ? partial_results(enough * multiprocessors(), 1, divide_up(pixels, warp_lanes)) : 0;
}

}  // namespace elsa::hadamard_attention
