// GELU and its gradient. Every element takes the same path wherever it lies, so that the result does not depend on how
// the work is divided among threads.
#pragma once

#include <cmath>
#include <initializer_list>

#include "simd.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

constexpr double inverse_sqrt_2 = 0.70710678118654752440, inverse_sqrt_2_pi = 0.39894228040143267794;

// exp(x) for x ≤ 0: 2^n times the Taylor series on the rest, which is at most ln(2) / 2.
ELSA_INLINE FloatVector exp_of_negative(FloatVector x) {
  const FloatVector n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
  const FloatVector rest = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  FloatVector series = FloatVector{} + 1.0f / 5040;
  for (float coefficient : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    series = series * rest + coefficient;
  }
  const FloatLanes exponent = (__builtin_convertvector(n, FloatLanes) + 127) << 23;
  FloatVector power;
  std::memcpy(&power, &exponent, sizeof(power));
  return x < -87.0f ? FloatVector{} : series * power;
}

// The cumulative distribution and the density of the normal distribution.
ELSA_INLINE void normal(FloatVector x, FloatVector& cdf, FloatVector& density) {
  const FloatVector magnitude = x < 0.0f ? -x : x;
  const FloatVector gauss = exp_of_negative(-0.5f * x * x);
  // exp(z²) · erfc(z) at z = |x| / √2 is a polynomial in 1 / (1 + z / 2) up to 3e-8 (a least-squares fit, reweighted
  // towards equal relative errors on z ≤ 9.6, where erfc vanishes in float32).
  const FloatVector t = 1.0f / (magnitude * float(0.5 * inverse_sqrt_2) + 1.0f);
  FloatVector series = FloatVector{} - 5.432440782e-02f;
  for (float coefficient : {2.601020342e-01f, -4.329126148e-01f, 2.103056239e-01f, 2.565173959e-02f, 1.769219185e-01f,
                            2.511895465e-01f, 2.808216458e-01f, 2.822519225e-01f, -7.439284112e-06f}) {
    series = series * t + coefficient;
  }
  const FloatVector tail = 0.5f * series * gauss;
  cdf = x < 0.0f ? tail : 1.0f - tail;
  density = gauss * float(inverse_sqrt_2_pi);
}

ELSA_INLINE void normal(DoubleVector x, DoubleVector& cdf, DoubleVector& density) {
  for (int lane = 0; lane < lanes<double>; ++lane) {
    cdf[lane] = 0.5 * std::erfc(-x[lane] * inverse_sqrt_2);
    density[lane] = std::exp(-0.5 * x[lane] * x[lane]) * inverse_sqrt_2_pi;
  }
}

template <typename T>
ELSA_INLINE Vector<T> gelu(Vector<T> x) {
  Vector<T> cdf, density;
  normal(x, cdf, density);
  return x * cdf;
}

template <typename T>
ELSA_INLINE Vector<T> gelu_backward(Vector<T> x, Vector<T> grad) {
  Vector<T> cdf, density;
  normal(x, cdf, density);
  return grad * (cdf + x * density);
}

template <typename T>
void gelu_as(const Gelu& op, int64_t first_unit, int64_t last_unit) {
  const int64_t last = last_unit * op.unit_size < op.size ? last_unit * op.unit_size : op.size;
  const auto apply = [&](int64_t k, std::size_t count) __attribute__((always_inline)) {
    Vector<T> x{}, grad{};
    std::memcpy(&x, static_cast<const T*>(op.x) + k, count * sizeof(T));
    if (op.grad != nullptr) std::memcpy(&grad, static_cast<const T*>(op.grad) + k, count * sizeof(T));
    const Vector<T> out = op.grad == nullptr ? gelu<T>(x) : gelu_backward<T>(x, grad);
    std::memcpy(static_cast<T*>(op.out) + k, &out, count * sizeof(T));
  };
  int64_t k = first_unit * op.unit_size;
  for (; k + lanes<T> <= last; k += lanes<T>) apply(k, lanes<T>);
  if (k < last) apply(k, std::size_t(last - k));
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
