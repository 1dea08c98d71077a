// Softmax over the K² taps of every head and pixel, and its gradient.
#pragma once

#include "gelu.h"
#include "pack.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

ELSA_INLINE DoubleVector exp2_of_negative(DoubleVector x) {
  for (int lane = 0; lane < lanes<double>; ++lane) x[lane] = std::exp2(x[lane]);
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
  const T top = largest_lane<T>(largest) * T(log2_e);
  for (int64_t k = 0; k < row.vectors; ++k) {
    const Vector<T> power = exp2_of_negative(row.load(logits, k, -T(INFINITY)) * T(log2_e) - top);
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

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
