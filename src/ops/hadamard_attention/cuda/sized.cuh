// The launches of hadamard_attention's kernels with a compile-time K.
#pragma once

#include "../../../cuda/dispatch.cuh"
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

}  // namespace elsa::hadamard_attention
