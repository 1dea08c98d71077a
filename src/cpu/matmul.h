// Small matrix products, whose sums do not depend on the number of threads.
#pragma once

#include "simd.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// Rows whose sums stay in registers, two vectors each.
constexpr int rows_at_once = vector_registers == 32 ? 7 : 6;

// The left factor: element (r, k) of it is from[r · row_step + k · term_step].
template <typename T>
struct Factor {
  const T* from;
  int64_t row_step, term_step;
};

template <typename T, int Rows>
ELSA_INLINE void multiply_rows(int64_t rows, int64_t terms, const Factor<T>& left, const T* right, int64_t right_step,
                               const T* start, int64_t start_step, T* out, int64_t out_step) {
  if constexpr (Rows > 0) {
    if (rows != Rows) {
      return multiply_rows<T, Rows - 1>(rows, terms, left, right, right_step, start, start_step, out, out_step);
    }
    constexpr int L = lanes<T>, Vectors = 2;
    Vector<T> sum[Rows][Vectors] = {};
    for (int64_t k = 0; k < terms; ++k) {
      const Vector<T> rights[Vectors] = {load_unaligned(right + k * right_step),
                                         load_unaligned(right + k * right_step + L)};
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const T factor = left.from[r * left.row_step + k * left.term_step];
        for (int v = 0; v < Vectors; ++v) sum[r][v] += rights[v] * factor;
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) {
        const Vector<T> before = start == nullptr ? Vector<T>{} : load_unaligned(start + r * start_step + v * L);
        store_unaligned(out + r * out_step + v * L, before + sum[r][v]);
      }
    }
  }
}

// out[r][l] = start[r][l] + Σ_k left[r][k] · right[k][l] for two vectors of l; start is zero where it is null, and may
// be out.
template <typename T>
void multiply(int64_t rows, int64_t terms, Factor<T> left, const T* right, int64_t right_step, const T* start,
              int64_t start_step, T* out, int64_t out_step) {
  for (; rows > 0; rows -= rows_at_once, left.from += rows_at_once * left.row_step) {
    multiply_rows<T, rows_at_once>(rows < rows_at_once ? rows : rows_at_once, terms, left, right, right_step, start,
                                   start_step, out, out_step);
    if (start != nullptr) start += rows_at_once * start_step;
    out += rows_at_once * out_step;
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
