// The grouped 1 × 1 convolution of hadamard_attention as matrix products over pixels, whose sums do not depend on the
// number of threads.
#pragma once

#include "tile.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// out[r][l] = start[l] + Σ_k rows[r · row_step + k · k_step] · panel[k][l], for up to `Rows` rows and two vectors of l.
template <typename T, int Rows>
ELSA_INLINE void multiply_rows(int64_t rows, int64_t terms, const T* from, int64_t row_step, int64_t k_step,
                               const T* panel, const T* start, T* out) {
  if constexpr (Rows > 0) {
    if (rows != Rows) {
      return multiply_rows<T, Rows - 1>(rows, terms, from, row_step, k_step, panel, start, out);
    }
    constexpr int L = lanes<T>, Vectors = 2;
    Vector<T> sum[Rows][Vectors];
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) sum[r][v] = load(start + v * L);
    }
    for (int64_t k = 0; k < terms; ++k) {
      const Vector<T> right[Vectors] = {load(panel + k * Vectors * L), load(panel + k * Vectors * L + L)};
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        const T left = from[r * row_step + k * k_step];
        for (int v = 0; v < Vectors; ++v) sum[r][v] += right[v] * left;
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < Vectors; ++v) store(out + (r * Vectors + v) * L, sum[r][v]);
    }
  }
}

constexpr int64_t rows_at_once = 7;

// One unit is up to Projection::unit_pixels rows of `in` and `out`.
template <typename T>
void projection_as(const Projection& op, int64_t first_unit, int64_t last_unit) {
  constexpr int64_t width = 2 * lanes<T>;
  const int64_t terms = op.in_channels / op.groups, outputs = op.out_channels / op.groups;
  const int64_t panels = (outputs + width - 1) / width;
  const T *weight = static_cast<const T*>(op.weight), *bias = static_cast<const T*>(op.bias);
  Scratch<T> panel(op.groups * panels * terms * width), start(op.groups * panels * width), out(rows_at_once * width);
  for (int64_t k = 0; k < op.groups * panels; ++k) {
    const int64_t group = k / panels, first = k % panels * width;
    for (int64_t l = 0; l < width; ++l) {
      const bool inside = first + l < outputs;
      const int64_t output = first + l;
      start[k * width + l] = inside && bias != nullptr ? bias[group * outputs + output] : T(0);
      for (int64_t term = 0; term < terms; ++term) {
        const int64_t at =
            op.adjoint ? (group * terms + term) * outputs + output : (group * outputs + output) * terms + term;
        panel[(k * terms + term) * width + l] = inside ? weight[at] : T(0);
      }
    }
  }
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t last = (unit + 1) * op.unit_pixels < op.pixels ? (unit + 1) * op.unit_pixels : op.pixels;
    for (int64_t k = 0; k < op.groups * panels; ++k) {
      const int64_t group = k / panels, first = k % panels * width;
      const int64_t count = outputs - first < width ? outputs - first : width;
      for (int64_t pixel = unit * op.unit_pixels; pixel < last; pixel += rows_at_once) {
        const int64_t rows = last - pixel < rows_at_once ? last - pixel : rows_at_once;
        multiply_rows<T, rows_at_once>(rows, terms,
                                       static_cast<const T*>(op.in) + pixel * op.in_channels + group * terms,
                                       op.in_channels, 1, panel + k * terms * width, start + k * width, out);
        for (int64_t r = 0; r < rows; ++r) {
          T* to = static_cast<T*>(op.out) + (pixel + r) * op.out_channels + group * outputs + first;
          if (count == width) {
            std::memcpy(to, out + r * width, width * sizeof(T));
          } else {
            std::memcpy(to, out + r * width, std::size_t(count) * sizeof(T));
          }
        }
      }
    }
  }
}

// Partial sums of the gradients of weight, [chunks][out][in/groups], and of bias, [chunks][out]; one unit per chunk.
// `out` holds the gradient of the output.
template <typename T>
void projection_weight_gradient_as(const ProjectionWeightGradient& gradient, int64_t first_unit, int64_t last_unit) {
  constexpr int64_t width = 2 * lanes<T>;
  const Projection& op = gradient.projection;
  const int64_t terms = op.in_channels / op.groups, outputs = op.out_channels / op.groups;
  const int64_t most_pixels = op.pixels / gradient.chunks + 1;
  Scratch<T> panel(most_pixels * width), start(width), sum(width), out(rows_at_once * width);
  zero<T>(start, width);
  for (int64_t chunk = first_unit; chunk < last_unit; ++chunk) {
    const int64_t first_pixel = chunk * op.pixels / gradient.chunks;
    const int64_t pixels = (chunk + 1) * op.pixels / gradient.chunks - first_pixel;
    T* weight = static_cast<T*>(gradient.partial_weight) + chunk * op.out_channels * terms;
    T* bias = static_cast<T*>(gradient.partial_bias) + chunk * op.out_channels;
    for (int64_t first = 0; first < op.out_channels;) {
      const int64_t group = first / outputs, left = (group + 1) * outputs - first;
      const int64_t count = left < width ? left : width;
      const T* grad = static_cast<const T*>(op.out) + first_pixel * op.out_channels + first;
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        copy_channels(grad + pixel * op.out_channels, 1, count, width, panel + pixel * width);
      }
      zero<T>(sum, width);
      for (int64_t pixel = 0; pixel < pixels; ++pixel) {
        for (int64_t l = 0; l < width; ++l) sum[l] += panel[pixel * width + l];
      }
      std::memcpy(bias + first, sum, std::size_t(count) * sizeof(T));
      const T* in = static_cast<const T*>(op.in) + first_pixel * op.in_channels + group * terms;
      for (int64_t term = 0; term < terms; term += rows_at_once) {
        const int64_t rows = terms - term < rows_at_once ? terms - term : rows_at_once;
        multiply_rows<T, rows_at_once>(rows, pixels, in + term, 1, op.in_channels, panel, start, out);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t l = 0; l < count; ++l) weight[(first + l) * terms + term + r] = out[r * width + l];
        }
      }
      first += count;
    }
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
