// Powers of two. Every element takes the same path wherever it lies.
#pragma once

#include <cmath>
#include <initializer_list>

#include "simd.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

constexpr double log2_e = 1.44269504088896340736;

// 2^x for x ≤ 0, and 0 where that is below the normal numbers.
ELSA_INLINE FloatVector exp2_of_negative(FloatVector x) {
  // The addition rounds x to an integer, which is then in the lowest bits of the sum.
  const FloatVector shifted = x + 12582912.0f, rest = x - (shifted - 12582912.0f);
  // Of 2^rest on |rest| ≤ 1/2, up to 2.6e-9 of it: a fit by benchmarks/fit_coefficients.py.
  FloatVector series = FloatVector{} + 1.534581169e-04f;
  for (float coefficient :
       {1.339993143e-03f, 9.618488960e-03f, 5.550328776e-02f, 2.402264689e-01f, 6.931472057e-01f, 1.0f})
    series = series * rest + coefficient;
  Words exponent;  // not signed: far below the normal numbers it overflows
  std::memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = (exponent << 23) + 0x3f800000u;
  FloatVector power;
  std::memcpy(&power, &exponent, sizeof(power));
  return x < -126.0f ? FloatVector{} : series * power;
}

ELSA_INLINE DoubleVector exp2_of_negative(DoubleVector x) {
  for (int lane = 0; lane < lanes<double>; ++lane) x[lane] = std::exp2(x[lane]);
  return x;
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
