// GELU and its derivative. Every element takes the same path wherever it lies, so that the result does not depend on
// how the work is divided among threads.
#pragma once

#include <cmath>

#include "../core/normal.h"
#include "exp2.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The cumulative distribution and the density of the normal distribution.
ELSA_INLINE void normal(FloatVector x, FloatVector& cdf, FloatVector& density) {
  const FloatVector magnitude = x < 0.0f ? -x : x;
  const FloatVector gauss = exp2_of_negative(x * float(-0.5 * log2_e) * x);
  // exp(z²) · erfc(z) at z = |x| / √2 is this polynomial in t = 1 / (1 + z / 2), up to 3.1e-8 of it: a fit by
  // benchmarks/fit_coefficients.py on z ≤ 9.6, where erfc vanishes in float32.
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

// GELU and its derivative.
template <typename T>
ELSA_INLINE void gelu_and_slope(Vector<T> x, Vector<T>& value, Vector<T>& slope) {
  Vector<T> cdf, density;
  normal(x, cdf, density);
  value = x * cdf;
  slope = cdf + x * density;
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
