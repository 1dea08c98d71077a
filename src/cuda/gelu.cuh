// GELU(x) = x · Φ(x), and its derivative.
#pragma once

#include <cmath>
#include <device.cuh>

#include "../core/normal.h"

namespace elsa::cuda {

// Φ, the distribution function of the normal distribution.
template <typename A>
__device__ A normal_distribution(A x) {
  return A(0.5) * (A(1) + std::erf(x * A(inverse_sqrt_2)));
}

template <typename A>
__device__ A gelu(A x) {
  return x * normal_distribution(x);
}

template <typename A>
__device__ A gelu_derivative(A x) {
  return normal_distribution(x) + x * A(inverse_sqrt_2_pi) * std::exp(A(-0.5) * x * x);
}

}  // namespace elsa::cuda
