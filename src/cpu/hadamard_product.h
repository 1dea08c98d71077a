// The first step of hadamard_attention, scale · pool(query ⊙ key), from the op's own maps into scratch, and its
// adjoint.
#pragma once

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

// The product of `pixels` pixels, into blocks that are block_step apart, [pixels][block] each.
template <bool Add, typename T, typename From>
void product_row(const MapRow<const From>& query, const MapRow<const From>& key, T scale, int64_t pixels,
                 int64_t channels, int64_t block_step, T* to) {
  constexpr int64_t width = block_width<T>;
  const int64_t blocks = channels / width;
  if (query.channel != 1 || key.channel != 1) {
    for (int64_t c = 0; c < channels; ++c) {
      product_of<Add>(query.data + c * query.channel, query.pixel, key.data + c * key.channel, key.pixel, scale, pixels,
                      to + c / width * block_step + c % width, width);
    }
    return;
  }
  for (int64_t u = 0; u < pixels; ++u) {
    const From *q = query.data + u * query.pixel, *k = key.data + u * key.pixel;
    for (int64_t block = 0; block < blocks; ++block) {
      product_of<Add>(q + block * width, 1, k + block * width, 1, scale, width, to + block * block_step + u * width, 1);
    }
    product_of<Add>(q + blocks * width, 1, k + blocks * width, 1, scale, channels % width,
                    to + blocks * block_step + u * width, 1);
  }
}

// The pooled product of `pixels` pixels from (y, x) on.
template <typename T, typename From>
void pooled_product_row(const HadamardCall& op, int64_t sample, int64_t y, int64_t x, int64_t pixels,
                        int64_t block_step, T* to) {
  constexpr int64_t width = block_width<T>;
  const int64_t stride = op.plan.shape.stride, channels = op.plan.shape.channels, blocks = op.plan.blocks();
  const T scale = T(op.scale / double(stride * stride));
  for (int64_t block = stride > 1 ? 0 : channels / width; block < blocks; ++block) {
    zero(to + block * block_step, pixels * width);
  }
  for (int64_t part = 0; part < stride * stride; ++part) {
    const int64_t from_y = y * stride + part / stride, from_x = x * stride + part % stride;
    const MapRow<const From> query(op.query, sample, 0, from_y, from_x, stride);
    const MapRow<const From> key(op.key, sample, 0, from_y, from_x, stride);
    stride == 1 ? product_row<false>(query, key, scale, pixels, channels, block_step, to)
                : product_row<true>(query, key, scale, pixels, channels, block_step, to);
  }
  for (int64_t block = 0; stride > 1 && block < blocks; ++block) {
    for (int64_t k = 0; k < pixels * width; ++k) to[block * block_step + k] *= scale;
  }
}

// The gradients of query and key for `count` elements from that of the product.
template <typename T, typename From>
ELSA_INLINE void product_backward_of(const T* __restrict__ grad, int64_t step, T scale, const From* __restrict__ query,
                                     int64_t query_step, const From* __restrict__ key, int64_t key_step, int64_t count,
                                     From* __restrict__ grad_query, int64_t grad_query_step,
                                     From* __restrict__ grad_key, int64_t grad_key_step) {
  for (int64_t k = 0; k < count; ++k) {
    const T g = grad[k * step] * scale;
    grad_query[k * grad_query_step] = convert<From>(g * convert<T>(key[k * key_step]));
    grad_key[k * grad_key_step] = convert<From>(g * convert<T>(query[k * query_step]));
  }
}

// The gradients of query and key from that of the pooled product, [pixels][block]. Pixels that the pooling dropped are
// not written.
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
    if (query.channel != 1 || key.channel != 1 || grad_query.channel != 1 || grad_key.channel != 1) {
      for (int64_t c = 0; c < channels; ++c) {
        product_backward_of(grad + c, width, scale, query.data + c * query.channel, query.pixel,
                            key.data + c * key.channel, key.pixel, pixels, grad_query.data + c * grad_query.channel,
                            grad_query.pixel, grad_key.data + c * grad_key.channel, grad_key.pixel);
      }
      continue;
    }
    for (int64_t u = 0; u < pixels; ++u) {
      product_backward_of(grad + u * width, 1, scale, query.data + u * query.pixel, 1, key.data + u * key.pixel, 1,
                          channels, grad_query.data + u * grad_query.pixel, 1, grad_key.data + u * grad_key.pixel, 1);
    }
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
  const int64_t row_step = around.length * block_width<T>, block_step = around.rows * row_step;
  with_element<T>(op.query.dtype, [&](auto element) {
    for (int64_t row = 0; row < around.rows; ++row, to += row_step) {
      for (int64_t block = 0; block < op.plan.blocks(); ++block) {
        zero(to + block * block_step, before * block_width<T>);
        zero(to + block * block_step + (before + inside) * block_width<T>,
             (around.length - before - inside) * block_width<T>);
      }
      pooled_product_row<T, decltype(element)>(op, sample, around.first_row + row, around.origin + before, inside,
                                               block_step, to + before * block_width<T>);
    }
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
