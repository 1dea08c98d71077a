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
  T sum = v[0];
  for (int lane = 1; lane < lanes<T>; ++lane) sum += v[lane];
  return sum;
}

template <typename T>
ELSA_INLINE T largest_lane(Vector<T> v) {
  T largest = v[0];
  for (int lane = 1; lane < lanes<T>; ++lane) largest = v[lane] > largest ? v[lane] : largest;
  return largest;
}

// In place, over whole vectors; what pads the last one is −∞ and becomes 0.
template <typename T>
ELSA_INLINE void softmax(T* x, int64_t padded) {
  constexpr int L = lanes<T>;
  Vector<T> largest = load(x), sum{};
  for (int64_t k = L; k < padded; k += L) largest = load(x + k) > largest ? load(x + k) : largest;
  const T top = largest_lane<T>(largest);
  for (int64_t k = 0; k < padded; k += L) {
    const Vector<T> power = exp_of_negative(load(x + k) - top);
    store(x + k, power);
    sum += power;
  }
  const T inverse = T(1) / sum_of_lanes<T>(sum);
  for (int64_t k = 0; k < padded; k += L) store(x + k, load(x + k) * inverse);
}

// grad becomes attn · (grad − Σ attn · grad); what pads the last vector is 0.
template <typename T>
ELSA_INLINE void softmax_backward(const T* attn, T* grad, int64_t padded) {
  constexpr int L = lanes<T>;
  Vector<T> sum{};
  for (int64_t k = 0; k < padded; k += L) sum += load(attn + k) * load(grad + k);
  const T mean = sum_of_lanes<T>(sum);
  for (int64_t k = 0; k < padded; k += L) store(grad + k, load(attn + k) * (load(grad + k) - mean));
}

// One unit is a row of pixels. `attn` is null in the forward, where `in` holds the logits; else `in` is the gradient.
template <typename T>
void softmax_as(const Softmax& op, int64_t first_unit, int64_t last_unit) {
  const int64_t taps = op.shape.kernel_size * op.shape.kernel_size, channels = op.shape.attn_channels();
  const int64_t columns = op.shape.out_width(), padded = (taps + lanes<T> - 1) / lanes<T> * lanes<T>;
  const bool backward = op.attn.data != nullptr;
  Scratch<T> row(columns * channels), attn_row(backward ? columns * channels : 0), x(padded), attn(padded);
  zero<T>(attn, padded);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t sample = unit / op.shape.out_height(), y = unit % op.shape.out_height();
    const Window window{{y, 1}, {0, columns}};
    pack_window<T>(op.in, sample, 0, channels, channels, window, row);
    if (backward) pack_window<T>(op.attn, sample, 0, channels, channels, window, attn_row);
    for (int64_t first = 0; first < columns * channels; first += taps) {
      std::memcpy(x, row + first, std::size_t(taps) * sizeof(T));
      for (int64_t k = taps; k < padded; ++k) x[k] = backward ? T(0) : -T(INFINITY);
      if (backward) {
        std::memcpy(attn, attn_row + first, std::size_t(taps) * sizeof(T));
        softmax_backward<T>(attn, x, padded);
      } else {
        softmax<T>(x, padded);
      }
      std::memcpy(row + first, x, std::size_t(taps) * sizeof(T));
    }
    unpack_row<T>(op.out, sample, 0, channels, channels, y, 0, columns, row);
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
