// The first step of hadamard_attention, scale · pool(query ⊙ key), from the op's own maps into scratch, and its
// adjoint.
#pragma once

#include "grouped_conv.h"

namespace elsa::hadamard_attention::ELSA_CAPABILITY {
namespace {

// Elements of a map from one pixel and channel on, its pixels `stride` columns apart.
template <typename Element>
struct MapRow {
  Element* data;
  int64_t pixel, channel;

  MapRow(const MapView& map, int64_t sample, int64_t first_channel, int64_t y, int64_t x, int64_t stride)
      : data(map.at<Element>(sample, first_channel, y, x)),
        pixel(stride * map.column_stride),
        channel(map.channel_stride) {}
};

// to = scale · query ⊙ key for `count` channels, or scale = 1 and to += query ⊙ key.
template <bool Add, typename T, typename From>
ELSA_INLINE void product_of(const From* __restrict__ query, int64_t query_step, const From* __restrict__ key,
                            int64_t key_step, T scale, int64_t count, T* __restrict__ to, int64_t step) {
  for (int64_t k = 0; k < count; ++k) {
    const T product = convert<T>(query[k * query_step]) * convert<T>(key[k * key_step]);
    to[k * step] = Add ? to[k * step] + product : product * scale;
  }
}

// The product of `pixels` pixels, into slices that are slice_step apart, [pixels][slice] each.
template <bool Add, typename T, typename From>
void product_row(const MapRow<const From>& query, const MapRow<const From>& key, T scale, int64_t pixels,
                 int64_t channels, int64_t slice_step, T* to) {
  constexpr int64_t width = slice_width<T>;
  const int64_t slices = channels / width;
  if (query.channel != 1 || key.channel != 1) {
    for (int64_t c = 0; c < channels; ++c) {
      product_of<Add>(query.data + c * query.channel, query.pixel, key.data + c * key.channel, key.pixel, scale, pixels,
                      to + c / width * slice_step + c % width, width);
    }
    return;
  }
  for (int64_t u = 0; u < pixels; ++u) {
    const From *q = query.data + u * query.pixel, *k = key.data + u * key.pixel;
    for (int64_t slice = 0; slice < slices; ++slice) {
      product_of<Add>(q + slice * width, 1, k + slice * width, 1, scale, width, to + slice * slice_step + u * width, 1);
    }
    product_of<Add>(q + slices * width, 1, k + slices * width, 1, scale, channels % width,
                    to + slices * slice_step + u * width, 1);
  }
}

// The pooled product of `pixels` pixels from (y, x) on.
template <typename T, typename From>
void pooled_product_row(const Call& op, int64_t sample, int64_t y, int64_t x, int64_t pixels, int64_t slice_step,
                        T* to) {
  constexpr int64_t width = slice_width<T>;
  const int64_t stride = op.plan.shape.pooling, channels = op.plan.shape.channels, slices = op.plan.slices();
  const T scale = T(op.scale / double(stride * stride));
  for (int64_t slice = stride > 1 ? 0 : channels / width; slice < slices; ++slice) {
    zero(to + slice * slice_step, pixels * width);
  }
  for (int64_t part = 0; part < stride * stride; ++part) {
    const int64_t from_y = y * stride + part / stride, from_x = x * stride + part % stride;
    const MapRow<const From> query(op.query, sample, 0, from_y, from_x, stride);
    const MapRow<const From> key(op.key, sample, 0, from_y, from_x, stride);
    stride == 1 ? product_row<false>(query, key, scale, pixels, channels, slice_step, to)
                : product_row<true>(query, key, scale, pixels, channels, slice_step, to);
  }
  for (int64_t slice = 0; stride > 1 && slice < slices; ++slice) {
    for (int64_t k = 0; k < pixels * width; ++k) to[slice * slice_step + k] *= scale;
  }
}

// to = scale · grad ⊙ other for `count` elements.
template <typename T, typename From>
ELSA_INLINE void scaled_by(const From* __restrict__ other, int64_t other_step, const T* __restrict__ grad, int64_t step,
                           T scale, int64_t count, From* __restrict__ to, int64_t to_step) {
  for (int64_t k = 0; k < count; ++k) {
    to[k * to_step] = convert<From>(grad[k * step] * scale * convert<T>(other[k * other_step]));
  }
}

// The gradient of query (where `other` is key) or of key from that of the pooled product, [pixels][slice].
template <typename T, typename From>
void factor_row_backward(const MapRow<const From>& other, const T* grad, T scale, int64_t pixels, int64_t channels,
                         const MapRow<From>& to) {
  constexpr int64_t width = slice_width<T>;
  if (other.channel != 1 || to.channel != 1) {
    for (int64_t c = 0; c < channels; ++c) {
      scaled_by(other.data + c * other.channel, other.pixel, grad + c, width, scale, pixels, to.data + c * to.channel,
                to.pixel);
    }
    return;
  }
  for (int64_t u = 0; u < pixels; ++u) {
    scaled_by(other.data + u * other.pixel, 1, grad + u * width, 1, scale, channels, to.data + u * to.pixel, 1);
  }
}

// The gradients of query and key that are asked for. Pixels that the pooling dropped are not written.
template <typename T, typename From>
void product_row_backward(const Call& op, int64_t sample, int64_t slice, int64_t y, int64_t x, int64_t pixels,
                          const T* grad) {
  const int64_t stride = op.plan.shape.pooling, first = slice * slice_width<T>;
  const int64_t left = op.plan.shape.channels - first, channels = left < slice_width<T> ? left : slice_width<T>;
  const T scale = T(op.scale / double(stride * stride));
  for (int64_t part = 0; part < stride * stride; ++part) {
    const int64_t to_y = y * stride + part / stride, to_x = x * stride + part % stride;
    const auto factor = [&](const MapView& other, const MapView& to) {
      if (to.data == nullptr) return;
      factor_row_backward<T, From>({other, sample, first, to_y, to_x, stride}, grad, scale, pixels, channels,
                                   {to, sample, first, to_y, to_x, stride});
    };
    factor(op.key, op.grad_query);
    factor(op.query, op.grad_key);
  }
}

// The pooled product around a tile, [slices][rows][columns][slice].
template <typename T>
void pack_product(const Call& op, int64_t sample, const Window& around, T* to) {
  const Inside columns = around.inside(around.x, op.plan.tiling.width);
  const int64_t before = columns.position, after = around.x.length - before - columns.count;
  const int64_t row_step = around.x.length * slice_width<T>, slice_step = around.y.length * row_step;
  with_type<T>(op.query.dtype, [&](auto element) {
    for (int64_t row = 0; row < around.y.length; ++row, to += row_step) {
      for (int64_t slice = 0; slice < op.plan.slices(); ++slice) {
        zero(to + slice * slice_step, before * slice_width<T>);
        zero(to + slice * slice_step + (before + columns.count) * slice_width<T>, after * slice_width<T>);
      }
      pooled_product_row<T, decltype(element)>(op, sample, around.y.origin + row, columns.pixel, columns.count,
                                               slice_step, to + before * slice_width<T>);
    }
  });
}

}  // namespace
}  // namespace elsa::hadamard_attention::ELSA_CAPABILITY
