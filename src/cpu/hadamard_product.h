// The first step of hadamard_attention, scale · pool(query ⊙ key), from the op's own maps into scratch, and its
// adjoint.
#pragma once

#include <type_traits>

#include "grouped_conv.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// Elements of a map from one pixel and channel on, its pixels `stride` columns apart.
template <typename Element>
struct MapRow {
  Element* data;
  int64_t pixel, channel;

  MapRow(const MapView& map, int64_t sample, int64_t first_channel, int64_t y, int64_t x, int64_t stride)
      : data(static_cast<Element*>(map.data) + sample * map.batch_stride + first_channel * map.channel_stride +
             y * map.row_stride + x * map.column_stride),
        pixel(stride * map.column_stride),
        channel(map.channel_stride) {}

  template <bool channels_last>
  Element& at(int64_t u, int64_t l) const {
    return data[u * pixel + (channels_last ? l : l * channel)];
  }
};

// apply(pixel, channel, layout) for every element, in the order in which a map of that layout lies in memory.
template <typename T, typename Apply>
ELSA_INLINE void for_each_element(bool channels_last, int64_t pixels, int64_t channels, const Apply& apply) {
  if (!channels_last) {
    for (int64_t l = 0; l < channels; ++l) {
      for (int64_t u = 0; u < pixels; ++u) apply(u, l, std::false_type{});
    }
  } else if (channels == block_width<T>) {
    for (int64_t u = 0; u < pixels; ++u) {
      for (int64_t l = 0; l < block_width<T>; ++l) apply(u, l, std::true_type{});
    }
  } else {
    for (int64_t u = 0; u < pixels; ++u) {
      for (int64_t l = 0; l < channels; ++l) apply(u, l, std::true_type{});
    }
  }
}

// The pooled product of `pixels` pixels from (y, x) on and of a block's channels, into [pixels][block].
template <typename T, typename From>
void product_row(const HadamardCall& op, int64_t sample, int64_t block, int64_t y, int64_t x, int64_t pixels,
                 T* __restrict__ to) {
  constexpr int64_t width = block_width<T>;
  const int64_t stride = op.plan.shape.stride, first = block * width;
  const int64_t left = op.plan.shape.channels - first, channels = left < width ? left : width;
  const T scale = T(op.scale / double(stride * stride));
  if (channels < width || stride > 1) zero(to, pixels * width);
  for (int64_t part = 0; part < stride * stride; ++part) {
    const int64_t from_y = y * stride + part / stride, from_x = x * stride + part % stride;
    const MapRow<const From> query(op.query, sample, first, from_y, from_x, stride);
    const MapRow<const From> key(op.key, sample, first, from_y, from_x, stride);
    const auto product = [&](int64_t u, int64_t l, auto layout) __attribute__((always_inline)) {
      return convert<T>(query.template at<layout>(u, l)) * convert<T>(key.template at<layout>(u, l));
    };
    const bool channels_last = query.channel == 1 && key.channel == 1;
    if (stride == 1) {
      for_each_element<T>(channels_last, pixels, channels, [&](int64_t u, int64_t l, auto layout) {
        to[u * width + l] = product(u, l, layout) * scale;
      });
    } else {
      for_each_element<T>(channels_last, pixels, channels,
                          [&](int64_t u, int64_t l, auto layout) { to[u * width + l] += product(u, l, layout); });
    }
  }
  for (int64_t k = 0; stride > 1 && k < pixels * width; ++k) to[k] *= scale;
}

// The gradients of query and key from that of the product, [pixels][block]. Pixels that the pooling dropped are not
// written.
template <typename T, typename From>
void product_row_backward(const HadamardCall& op, int64_t sample, int64_t block, int64_t y, int64_t x, int64_t pixels,
                          const T* grad) {
  constexpr int64_t width = block_width<T>;
  const int64_t stride = op.plan.shape.stride, first = block * width;
  const int64_t left = op.plan.shape.channels - first, channels = left < width ? left : width;
  const T scale = T(op.scale / double(stride * stride));
  for (int64_t part = 0; part < stride * stride; ++part) {
    const int64_t to_y = y * stride + part / stride, to_x = x * stride + part % stride;
    const MapRow<const From> query(op.query, sample, first, to_y, to_x, stride);
    const MapRow<const From> key(op.key, sample, first, to_y, to_x, stride);
    const MapRow<From> grad_query(op.grad_query, sample, first, to_y, to_x, stride);
    const MapRow<From> grad_key(op.grad_key, sample, first, to_y, to_x, stride);
    const bool channels_last =
        query.channel == 1 && key.channel == 1 && grad_query.channel == 1 && grad_key.channel == 1;
    for_each_element<T>(channels_last, pixels, channels, [&](int64_t u, int64_t l, auto layout) {
      const T g = grad[u * width + l] * scale;
      grad_query.template at<layout>(u, l) = convert<From>(g * convert<T>(key.template at<layout>(u, l)));
      grad_key.template at<layout>(u, l) = convert<From>(g * convert<T>(query.template at<layout>(u, l)));
    });
  }
}

// work(an element of dtype's type).
template <typename T, typename Work>
void with_element(DType dtype, const Work& work) {
  if constexpr (sizeof(T) == sizeof(double)) {
    work(double{});
  } else if (dtype == DType::float32) {
    work(float{});
  } else if (dtype == DType::bfloat16) {
    work(BFloat16{});
  } else {
    work(Float16{});
  }
}

// The pooled product around a tile, [blocks][rows][columns][block].
template <typename T>
void pack_product(const HadamardCall& op, int64_t sample, const HadamardWindow& around, T* to) {
  const int64_t width = op.plan.shape.out_width();
  const int64_t before = around.origin < 0 ? -around.origin : 0;
  const int64_t end = around.origin + around.length < width ? around.origin + around.length : width;
  const int64_t inside = end - around.origin - before;
  with_element<T>(op.query.dtype, [&](auto element) {
    for (int64_t block = 0; block < op.plan.blocks(); ++block) {
      for (int64_t row = 0; row < around.rows; ++row, to += around.length * block_width<T>) {
        zero(to, before * block_width<T>);
        product_row<T, decltype(element)>(op, sample, block, around.first_row + row, around.origin + before, inside,
                                          to + before * block_width<T>);
        zero(to + (before + inside) * block_width<T>, (around.length - before - inside) * block_width<T>);
      }
    }
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
