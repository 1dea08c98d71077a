// The launches of hadamard_attention's kernels with a compile-time K.
#pragma once

#include <algorithm>

#include "../../../cuda/dispatch.cuh"
#include "weight_gradient.cuh"

namespace elsa::hadamard_attention {

using namespace cuda;

template <typename T>
ConvArguments<T> conv_arguments(const Conv& op) {
  return {
      Map<const T>(op.query),
      Map<const T>(op.key),
      Map<T>(op.hidden),
      Map<T>(op.grad),
      Map<T>(op.grad_query),
      Map<T>(op.grad_key),
      static_cast<const T*>(op.weight),
      static_cast<const T*>(op.bias),
      float(op.scale),
      Tiling(int(op.shape.height), int(op.shape.width), int(op.shape.neighbourhood.dilation), conv_slots, slots_across(op.hidden)),
      int(op.shape.batch),
      int(op.shape.channels),
      int(op.shape.channels / op.shape.groups)};
}

inline int64_t channel_blocks(const Conv& op) {
  return (op.shape.channels + slot_channels - 1) / slot_channels;
}

template <int K>
void conv_sized(const Conv& op, ConvStep step, void* stream) {
  constexpr int64_t enough_blocks = 8;  // on a multiprocessor, over all channels
  choose_narrow(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const ConvArguments<T> arguments = conv_arguments<T>(op);
    const int64_t rows = channel_blocks(op), tiles = op.shape.batch * int64_t(arguments.tiling.tiles);
    const Grid grid{std::clamp<int64_t>(enough_blocks * multiprocessors() / rows, 1, tiles), rows, 1, conv_threads,
                    conv_shared_bytes<K>};
    const auto fits = [&](const MapView& map) { return !map.data || vectors_fit<T>(map, op.shape.channels); };
    const bool adjoint = step == ConvStep::adjoint;
    const bool vectors = fits(op.query) && fits(op.key) && (!adjoint || (fits(op.grad_query) && fits(op.grad_key)));
    choose(vectors, [&](auto vector) {
      const auto start = [&](const char* name, auto kernel) { launch(name, kernel, grid, stream, arguments); };
      switch (step) {
        case ConvStep::forward:
          return start("hadamard_attention", conv_kernel<T, K, vector.value, ConvStep::forward>);
        case ConvStep::recompute:
          return start("hadamard_attention_backward", conv_kernel<T, K, vector.value, ConvStep::recompute>);
        case ConvStep::adjoint:
          return start("hadamard_attention_backward", conv_kernel<T, K, vector.value, ConvStep::adjoint>);
      }
    });
  });
}

template <int K>
void weight_gradient_sized(const WeightGradient& gradient, void* stream) {
  const Conv& op = gradient.conv;
  choose_narrow(op.query.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const WeightGradientArguments<T> arguments{conv_arguments<T>(op), static_cast<float*>(gradient.partial_weight),
                                               static_cast<float*>(gradient.partial_bias)};
    const int64_t in_blocks = op.shape.channels / op.shape.groups / lane_channels;
    choose(vectors_fit<T>(op.query, op.shape.channels) && vectors_fit<T>(op.key, op.shape.channels), [&](auto vector) {
      const int64_t parts = weight_row_parts<K> * weight_parts<K, vector.value>;
      launch("hadamard_attention_backward", weight_gradient_kernel<T, K, vector.value>,
             {gradient.chunks, channel_blocks(op), parts * in_blocks, 32 * weight_rows<K>, 0}, stream, arguments);
    });
  });
}

}  // namespace elsa::hadamard_attention
