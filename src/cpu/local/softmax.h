// Softmax over the taps of every output, and its gradient. Lanes are outputs, so that it needs no sum over lanes.
#pragma once

#include "../exp2.h"
#include "bias.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The taps of one vector of outputs, [row][column][lane].
template <typename T>
struct LaneTaps {
  T* numbers;
  const Taps& output;  // along y
  int64_t vector, columns;

  // Call f(row of numbers, tap's row) for the rows that count.
  template <typename Function>
  ELSA_INLINE_HERE void for_each_row(const Function& f) const {
    for (int64_t i = output.begin; i < output.end; ++i) f(numbers + i * columns * lanes<T>, i);
  }
};

// numbers = number · scale + bias.
template <typename T>
ELSA_INLINE void scale_taps(const LaneTaps<T>& taps, LaneBias<T>& bias, T scale) {
  constexpr int64_t L = lanes<T>;
  taps.for_each_row([&](T* row, int64_t i) {
    const T* added = bias.given() ? bias.row(taps.vector, taps.output, i) : nullptr;
    for (int64_t j = 0; j < taps.columns; ++j) {
      const Vector<T> product = load(row + j * L) * scale;
      store(row + j * L, added ? product + load(added + j * L) : product);
    }
  });
}

// The softmax of number · scale + bias, where both are in units of ln 2: its powers are of 2.
template <typename T>
ELSA_INLINE void softmax_taps(const LaneTaps<T>& taps, LaneBias<T>& bias, T scale) {
  constexpr int64_t L = lanes<T>;
  Vector<T> largest = broadcast(-T(INFINITY)), sum{};
  taps.for_each_row([&](T* row, int64_t i) {
    const T* added = bias.given() ? bias.row(taps.vector, taps.output, i) : nullptr;
    Vector<T> of_row = broadcast(-T(INFINITY));  // apart: rows need not wait for each other
    for (int64_t j = 0; j < taps.columns; ++j) {
      const Vector<T> product = load(row + j * L) * scale, logit = added ? product + load(added + j * L) : product;
      store(row + j * L, logit);
      of_row = logit > of_row ? logit : of_row;
    }
    largest = of_row > largest ? of_row : largest;
  });
  taps.for_each_row([&](T* row, int64_t) {
    Vector<T> of_row{};  // summed up apart: the sum of many taps would lose the last ones
    for (int64_t j = 0; j < taps.columns; ++j) {
      const Vector<T> power = exp2_of_negative(load(row + j * L) - largest);
      store(row + j * L, power);
      of_row += power;
    }
    sum += of_row;
  });
  const Vector<T> inverse = T(1) / sum;
  taps.for_each_row([&](T* row, int64_t) {
    for (int64_t j = 0; j < taps.columns; ++j) store(row + j * L, load(row + j * L) * inverse);
  });
}

// grad = attn · (grad − Σ attn · grad).
template <typename T>
ELSA_INLINE void softmax_taps_backward(const LaneTaps<T>& attn, const LaneTaps<T>& grad) {
  constexpr int64_t L = lanes<T>;
  Vector<T> sum{};
  attn.for_each_row([&](const T* weights, int64_t i) {
    const T* row = grad.numbers + i * grad.columns * L;
    Vector<T> of_row{};
    for (int64_t j = 0; j < attn.columns; ++j) of_row += load(weights + j * L) * load(row + j * L);
    sum += of_row;
  });
  attn.for_each_row([&](const T* weights, int64_t i) {
    T* row = grad.numbers + i * grad.columns * L;
    for (int64_t j = 0; j < attn.columns; ++j) store(row + j * L, load(weights + j * L) * (load(row + j * L) - sum));
  });
}

// Add the gradients of a vector's logits to those of its bias.
template <typename T>
ELSA_INLINE void add_bias_gradient(const LaneTaps<T>& grad, LaneBias<T>& sums) {
  constexpr int64_t L = lanes<T>;
  grad.for_each_row([&](const T* row, int64_t i) {
    T* to = sums.row(grad.vector, grad.output, i);
    for (int64_t j = 0; j < grad.columns; ++j) store(to + j * L, load(to + j * L) + load(row + j * L));
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
