// Softmax over the K² taps of every head and pixel, and its gradient.
#pragma once

#include "exp2.h"
#include "pack.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

template <typename T>
ELSA_INLINE Vector<T> add(Vector<T> a, Vector<T> b) {
  return a + b;
}

template <typename T>
ELSA_INLINE Vector<T> maximum(Vector<T> a, Vector<T> b) {
  return a > b ? a : b;
}

// Copy fewer elements than a vector has: two halves that overlap are faster than a copy of any length.
template <typename T>
ELSA_INLINE void copy_part(const T* from, int count, T* to) {
  constexpr int half = lanes<T> / 2;
  if (count >= half) {
    std::memcpy(to, from, half * sizeof(T));
    std::memcpy(to + count - half, from + count - half, half * sizeof(T));
  } else {
    std::memcpy(to, from, std::size_t(count) * sizeof(T));
  }
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
    copy_part<T>(row, rest, reinterpret_cast<T*>(&v) + L - rest);
    return v;
  }

  void store(T* row, int64_t k, Vector<T> v) const {
    if (k < count / L) {
      std::memcpy(row + k * L, &v, sizeof(v));
    } else if (count > L) {
      std::memcpy(row + count - L, &v, sizeof(v));
    } else {
      copy_part<T>(reinterpret_cast<const T*>(&v) + L - rest, rest, row);
    }
  }

  // The same for a row that is known to have `Vectors` > 1 vectors.
  template <int Vectors>
  Vector<T> load_of(const T* row, int k) const {
    return load_unaligned(row + (k < Vectors - 1 ? k * L : count - L));
  }
  template <int Vectors>
  void store_of(T* row, int k, Vector<T> v) const {
    store_unaligned(row + (k < Vectors - 1 ? k * L : count - L), v);
  }
  template <int Vectors>
  Vector<T> own_of(int k, Vector<T> v) const {
    return k < Vectors - 1 ? v : own(k, v);
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
  for (int64_t k = 1; k < row.vectors; ++k) largest = maximum<T>(row.load(logits, k, -T(INFINITY)), largest);
  const T top = fold_lanes<T>(largest, maximum<T>) * T(log2_e);
  for (int64_t k = 0; k < row.vectors; ++k) {
    const Vector<T> power = exp2_of_negative(row.load(logits, k, -T(INFINITY)) * T(log2_e) - top);
    store(powers + k * lanes<T>, power);
    sum += row.own(k, power);
  }
  const T inverse = T(1) / fold_lanes<T>(sum, add<T>);
  for (int64_t k = 0; k < row.vectors; ++k) row.store(attn, k, load(powers + k * lanes<T>) * inverse);
}

// grad_logits = attn · (grad − Σ attn · grad).
template <typename T>
ELSA_INLINE void softmax_backward(const VectorRow<T>& row, const T* attn, const T* grad, T* grad_logits) {
  Vector<T> sum{};
  for (int64_t k = 0; k < row.vectors; ++k) sum += row.own(k, row.load(attn, k, T(0)) * row.load(grad, k, T(0)));
  const T mean = fold_lanes<T>(sum, add<T>);
  for (int64_t k = 0; k < row.vectors; ++k) {
    row.store(grad_logits, k, row.load(attn, k, T(0)) * (row.load(grad, k, T(0)) - mean));
  }
}

// In lane r, the lanes of v[r] combined by f: always in the same order.
template <typename T, typename Function>
ELSA_INLINE Vector<T> fold_rows(const Vector<T> (&v)[4], const Function& f) {
  const Vector<T> first = f(interleave<T, 1>(v[0], v[1], 0), interleave<T, 1>(v[0], v[1], 1));
  const Vector<T> second = f(interleave<T, 1>(v[2], v[3], 0), interleave<T, 1>(v[2], v[3], 1));
  Vector<T> all = f(interleave<T, 2>(first, second, 0), interleave<T, 2>(first, second, 1));
  if constexpr (lanes<T> >= 16) all = f(all, rotate<T, 8>(all));
  if constexpr (lanes<T> >= 8) all = f(all, rotate<T, 4>(all));
  return all;
}

// Four rows of `Vectors` vectors at once: one alone would mostly wait for the sum of its lanes.
template <typename T, int Vectors>
ELSA_INLINE void softmax_of_four(const VectorRow<T>& row, const T* const (&logits)[4], T* const (&attn)[4]) {
  Vector<T> x[4][Vectors], largest[4], sum[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 8
    for (int k = 0; k < Vectors; ++k) {
      x[r][k] = row.template load_of<Vectors>(logits[r], k);
      largest[r] = k == 0 ? x[r][0] : maximum<T>(x[r][k], largest[r]);
    }
  }
  const Vector<T> top = fold_rows<T>(largest, maximum<T>) * T(log2_e);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const Vector<T> top_of_row = spread<T>(top, lanes<T>, r);
#pragma GCC unroll 8
    for (int k = 0; k < Vectors; ++k) {
      x[r][k] = exp2_of_negative(x[r][k] * T(log2_e) - top_of_row);
      const Vector<T> own = row.template own_of<Vectors>(k, x[r][k]);
      sum[r] = k == 0 ? own : sum[r] + own;
    }
  }
  const Vector<T> inverse = T(1) / fold_rows<T>(sum, add<T>);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const Vector<T> factor = spread<T>(inverse, lanes<T>, r);
#pragma GCC unroll 8
    for (int k = 0; k < Vectors; ++k) row.template store_of<Vectors>(attn[r], k, x[r][k] * factor);
  }
}

template <typename T, int Vectors>
ELSA_INLINE void softmax_backward_of_four(const VectorRow<T>& row, const T* const (&attn)[4], const T* const (&grad)[4],
                                          T* const (&grad_logits)[4]) {
  Vector<T> sum[4] = {};
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 8
    for (int k = 0; k < Vectors; ++k) {
      sum[r] += row.template own_of<Vectors>(
          k, row.template load_of<Vectors>(attn[r], k) * row.template load_of<Vectors>(grad[r], k));
    }
  }
  const Vector<T> mean = fold_rows<T>(sum, add<T>);
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const Vector<T> mean_of_row = spread<T>(mean, lanes<T>, r);
#pragma GCC unroll 8
    for (int k = 0; k < Vectors; ++k) {
      row.template store_of<Vectors>(
          grad_logits[r], k,
          row.template load_of<Vectors>(attn[r], k) * (row.template load_of<Vectors>(grad[r], k) - mean_of_row));
    }
  }
}

// The attention maps of pixels whose channels lie together, `step` apart from pixel to pixel.
template <typename Element>
struct PixelMaps {
  Element* data;
  int64_t step;
};

// work(four offsets per operand) over all maps of `pixels` pixels, four at a time; the last map fills up
// the last four.
template <typename Work>
ELSA_INLINE void for_each_four(int64_t pixels, int64_t heads, const Work& work) {
  int64_t pixel = 0, head = 0;
  for (int64_t left = pixels * heads; left > 0; left -= 4) {
    int64_t at_pixel[4], at_head[4];
    for (int r = 0; r < 4; ++r) {
      at_pixel[r] = pixel, at_head[r] = head;
      if (r + 1 < left && ++head == heads) head = 0, ++pixel;
    }
    work(at_pixel, at_head);
  }
}

// attn = softmax(logits), or where attn is given grad_logits from attn and its gradient, of `pixels` pixels.
template <typename T, int Vectors>
void softmax_pixels(const VectorRow<T>& row, int64_t pixels, int64_t heads, PixelMaps<const T> logits,
                    PixelMaps<T> attn) {
  if constexpr (Vectors == 0) {
    Scratch<T> powers(row.vectors * lanes<T>);
    for (int64_t x = 0; x < pixels; ++x) {
      for (int64_t head = 0; head < heads; ++head) {
        softmax<T>(row, logits.data + x * logits.step + head * row.count, powers,
                   attn.data + x * attn.step + head * row.count);
      }
    }
  } else {
    for_each_four(pixels, heads,
                  [&](const int64_t (&pixel)[4], const int64_t (&head)[4]) __attribute__((always_inline)) {
                    const T* from[4];
                    T* to[4];
                    for (int r = 0; r < 4; ++r) {
                      from[r] = logits.data + pixel[r] * logits.step + head[r] * row.count;
                      to[r] = attn.data + pixel[r] * attn.step + head[r] * row.count;
                    }
                    softmax_of_four<T, Vectors>(row, from, to);
                  });
  }
}

template <typename T, int Vectors>
void softmax_backward_pixels(const VectorRow<T>& row, int64_t pixels, int64_t heads, PixelMaps<const T> attn,
                             PixelMaps<const T> grad, PixelMaps<T> grad_logits) {
  if constexpr (Vectors == 0) {
    for (int64_t x = 0; x < pixels; ++x) {
      for (int64_t head = 0; head < heads; ++head) {
        const int64_t first = head * row.count;
        softmax_backward<T>(row, attn.data + x * attn.step + first, grad.data + x * grad.step + first,
                            grad_logits.data + x * grad_logits.step + first);
      }
    }
  } else {
    for_each_four(pixels, heads,
                  [&](const int64_t (&pixel)[4], const int64_t (&head)[4]) __attribute__((always_inline)) {
                    const T *from[4], *by[4];
                    T* to[4];
                    for (int r = 0; r < 4; ++r) {
                      from[r] = attn.data + pixel[r] * attn.step + head[r] * row.count;
                      by[r] = grad.data + pixel[r] * grad.step + head[r] * row.count;
                      to[r] = grad_logits.data + pixel[r] * grad_logits.step + head[r] * row.count;
                    }
                    softmax_backward_of_four<T, Vectors>(row, from, by, to);
                  });
  }
}

template <typename T>
struct SoftmaxKernels {
  void (*forward)(const VectorRow<T>&, int64_t pixels, int64_t heads, PixelMaps<const T> logits, PixelMaps<T> attn);
  void (*backward)(const VectorRow<T>&, int64_t pixels, int64_t heads, PixelMaps<const T> attn, PixelMaps<const T> grad,
                   PixelMaps<T> grad_logits);
};

template <typename T, int Vectors = sizeof(T) == sizeof(float) ? 7 : 0>
SoftmaxKernels<T> softmax_kernels(const VectorRow<T>& row) {
  if constexpr (Vectors > 1) {
    return row.vectors == Vectors ? SoftmaxKernels<T>{softmax_pixels<T, Vectors>, softmax_backward_pixels<T, Vectors>}
                                  : softmax_kernels<T, Vectors - 1>(row);
  } else {
    return {softmax_pixels<T, 0>, softmax_backward_pixels<T, 0>};
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
