// Arithmetic of indices.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "inline.h"

namespace elsa {

ELSA_INLINE_ANYWHERE constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
ELSA_INLINE_ANYWHERE constexpr int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// How many parts of `part` cover `whole`.
template <typename Whole, typename Part>
ELSA_INLINE_ANYWHERE constexpr auto divide_up(Whole whole, Part part) {
  return (whole + part - 1) / part;
}

// The product of factors that are not negative, or the largest number where 64 bits do not hold it.
constexpr int64_t product(std::initializer_list<int64_t> factors) {
  int64_t result = 1;
  bool fits = true;
  for (const int64_t factor : factors) {
    if (factor == 0) return 0;
    fits = fits && !__builtin_mul_overflow(result, factor, &result);
  }
  return fits ? result : INT64_MAX;
}

}  // namespace elsa
