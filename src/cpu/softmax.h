// Softmax over the K² taps of every head and pixel, and its gradient.
#pragma once

#include "gelu.h"
#include "pack.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

ELSA_INLINE DoubleVector exp_of_negative(DoubleVector x) {
  for (int lane = 0; lane < lanes<double>; ++lane) x[lane] = std::exp(x[lane]);
  return x;
}

template <typename T>
ELSA_INLINE T sum_of_lanes(Vector<T> v) {
  return fold_lanes<T>(v, [](Vector<T> a, Vector<T> b) { return a + b; });
}

template <typename T>
ELSA_INLINE T largest_lane(Vector<T> v) {
  return fold_lanes<T>(v, [](Vector<T> a, Vector<T> b) { return a > b ? a : b; });
}

// A row of `count` elements as vectors. Where count is no multiple of the lanes, the last vector holds what remains in
// its highest lanes; below them are elements of the vector before, or padding.
template <typename T>
struct VectorRow {
  static constexpr int L = lanes<T>;
  int64_t count, vectors;
  int rest;

  explicit VectorRow(int64_t size) : count(size), vectors((size + L - 1) / L), rest(int(size % L)) {}

  Vector<T> load(const T* row, int64_t k, T padding) const {
    if (k < count / L) return load_unaligned(row + k * L);
    if (count > L) return load_unaligned(row + count - L);
    Vector<T> v = Vector<T>{} + padding;
    std::memcpy(reinterpret_cast<T*>(&v) + L - rest, row, std::size_t(rest) * sizeof(T));
    return v;
  }

  void store(T* row, int64_t k, Vector<T> v) const {
    if (k < count / L) {
      std::memcpy(row + k * L, &v, sizeof(v));
    } else if (count > L) {
      std::memcpy(row + count - L, &v, sizeof(v));
    } else {
      std::memcpy(row, reinterpret_cast<const T*>(&v) + L - rest, std::size_t(rest) * sizeof(T));
    }
  }

  // The k-th vector, with zeros below the elements of its own.
  Vector<T> own(int64_t k, Vector<T> v) const {
    if (k < count / L) return v;
    typename Simd<T>::Lanes lane;
    for (int l = 0; l < L; ++l) lane[l] = l;
    return lane < L - rest ? Vector<T>{} : v;
  }
};

// `powers` is scratch for the row's vectors.
template <typename T>
ELSA_INLINE void softmax(const VectorRow<T>& row, const T* logits, T* powers, T* attn) {
  Vector<T> largest = row.load(logits, 0, -T(INFINITY)), sum{};
  for (int64_t k = 1; k < row.vectors; ++k) {
    const Vector<T> x = row.load(logits, k, -T(INFINITY));
    largest = x > largest ? x : largest;
  }
  const T top = largest_lane<T>(largest);
  for (int64_t k = 0; k < row.vectors; ++k) {
    const Vector<T> power = exp_of_negative(row.load(logits, k, -T(INFINITY)) - top);
    store(powers + k * lanes<T>, power);
    sum += row.own(k, power);
  }
  const T inverse = T(1) / sum_of_lanes<T>(sum);
  for (int64_t k = 0; k < row.vectors; ++k) row.store(attn, k, load(powers + k * lanes<T>) * inverse);
}

// grad_logits = attn · (grad − Σ attn · grad).
template <typename T>
ELSA_INLINE void softmax_backward(const VectorRow<T>& row, const T* attn, const T* grad, T* grad_logits) {
  Vector<T> sum{};
  for (int64_t k = 0; k < row.vectors; ++k) sum += row.own(k, row.load(attn, k, T(0)) * row.load(grad, k, T(0)));
  const T mean = sum_of_lanes<T>(sum);
  for (int64_t k = 0; k < row.vectors; ++k) {
    row.store(grad_logits, k, row.load(attn, k, T(0)) * (row.load(grad, k, T(0)) - mean));
  }
}

// One unit is a row of pixels. `attn` is null in the forward, where `in` holds the logits; else `in` is the gradient.
template <typename T>
void softmax_as(const Softmax& op, int64_t first_unit, int64_t last_unit) {
  const int64_t taps = op.shape.kernel_size * op.shape.kernel_size;
  const int64_t channels = op.shape.attn_channels(), size = op.shape.out_width() * channels;
  const bool backward = op.attn.data != nullptr;
  const VectorRow<T> row(taps);
  Scratch<T> in_row(size), attn_row(backward ? size : 0), out_row(size), powers(row.vectors * lanes<T>);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t sample = unit / op.shape.out_height(), y = unit % op.shape.out_height();
    const T* in = dense_row<T>(op.in, sample, y, channels, in_row);
    const T* attn = backward ? dense_row<T>(op.attn, sample, y, channels, attn_row) : nullptr;
    for (int64_t first = 0; first < size; first += taps) {
      backward ? softmax_backward<T>(row, attn + first, in + first, out_row + first)
               : softmax<T>(row, in + first, powers, out_row + first);
    }
    unpack_row<T>(op.out, sample, 0, channels, channels, y, 0, op.shape.out_width(), out_row);
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
