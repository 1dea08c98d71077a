// The launches of hadamard_attention's kernels with a compile-time K.
#pragma once

#include "../../../cuda/dispatch.cuh"
#include "softmax.cuh"
#include "weight_gradient.cuh"

namespace elsa::hadamard_attention {

using namespace cuda;

template <typename T>
ConvArguments<T> conv_arguments(const Conv& op, int tile_strips) {
  const StripTiling tiling(int(op.shape.height), int(op.shape.width), int(op.shape.neighbourhood.dilation), tile_strips,
                           strips_across(op.hidden));
  return {Map<const T>(op.query),
          Map<const T>(op.key),
          Map<T>(op.hidden),
          Map<T>(op.grad),
          Map<T>(op.grad_query),
          Map<T>(op.grad_key),
          static_cast<const T*>(op.weight),
          static_cast<const T*>(op.bias),
          float(op.scale),
          tiling,
          int(op.shape.batch),
          int(op.shape.channels),
          int(op.shape.group_width())};
}

template <typename Traits>
void launch_conv(const Conv& op, void* stream) {
  const auto arguments = conv_arguments<typename Traits::T>(op, Traits::strips);
  const int64_t slices = divide_up(op.shape.channels, slice_channels);
  const int64_t tiles = op.shape.batch * int64_t(arguments.tiling.tiles);
  launch(conv_kernel<Traits>, grid_of<Traits>(blocks_for_tiles(slices, tiles), slices), stream, arguments);
}

template <int K>
void conv_sized(const Conv& op, ConvStep step, void* stream) {
  choose_narrow(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const auto fits = [&](const MapView& map) { return !map.data || vectors_fit<T>(map, op.shape.channels); };
    const bool adjoint = step == ConvStep::adjoint;
    const bool vectors = fits(op.query) && fits(op.key) && (!adjoint || (fits(op.grad_query) && fits(op.grad_key)));
    choose(vectors, [&](auto vector) {
      switch (step) {
        case ConvStep::forward:
          return launch_conv<ConvTraits<T, K, vector.value, ConvStep::forward>>(op, stream);
        case ConvStep::recompute:
          return launch_conv<ConvTraits<T, K, vector.value, ConvStep::recompute>>(op, stream);
        case ConvStep::adjoint:
          return launch_conv<ConvTraits<T, K, vector.value, ConvStep::adjoint>>(op, stream);
      }
    });
  });
}

template <typename Traits>
void launch_weight_gradient(const WeightGradient& gradient, void* stream) {
  const Shape& shape = gradient.conv.shape;
  const WeightGradientArguments<typename Traits::T> arguments{
      conv_arguments<typename Traits::T>(gradient.conv, Traits::strips), static_cast<float*>(gradient.partial_weight),
      static_cast<float*>(gradient.partial_bias)};
  const int64_t slices = divide_up(shape.channels, slice_channels), quads = shape.group_width() / lane_channels;
  launch(weight_gradient_kernel<Traits>,
         grid_of<Traits>(gradient.chunks, slices, Traits::row_parts * Traits::tap_parts * quads), stream, arguments);
}

template <int K>
void weight_gradient_sized(const WeightGradient& gradient, void* stream) {
  const Conv& op = gradient.conv;
  choose_narrow(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(vectors_fit<T>(op.query, op.shape.channels) && vectors_fit<T>(op.key, op.shape.channels),
           [&](auto vector) { launch_weight_gradient<WeightGradientTraits<T, K, vector.value>>(gradient, stream); });
  });
}

// Whether a map of attention lies in memory as the logits do, and can be copied in vectors of 16 bytes.
inline bool is_run(const MapView& map, int64_t channels) {
  return map.channel_stride == 1 && map.column_stride == channels && map.row_stride == map.width * channels &&
         map.batch_stride == map.height * map.row_stride && reinterpret_cast<uintptr_t>(map.data) % 16 == 0;
}

template <typename Traits>
void launch_softmax(const Softmax& op, void* stream) {
  const int64_t runs = divide_up(op.shape.batch * op.out.height * op.out.width, warp_lanes);
  launch(softmax_kernel<Traits>,
         {op.partial_bias ? op.chunks : runs, 1, 1, Traits::threads, Traits::shared_bytes(op.shape.attn_channels())},
         stream, op);
}

template <int K>
void softmax_sized(const Softmax& op, void* stream) {
  const bool is_backward = op.attn.data != nullptr;
  const int64_t channels = op.shape.attn_channels();
  const bool all_runs = is_backward ? is_run(op.in, channels) && is_run(op.attn, channels) : is_run(op.out, channels);
  choose_narrow(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    choose(all_runs, [&](auto run) {
      choose(is_backward,
             [&](auto backward) { launch_softmax<SoftmaxTraits<T, K, run.value, backward.value>>(op, stream); });
    });
  });
}

}  // namespace elsa::hadamard_attention
