// The grouped K × K convolution of hadamard_attention and the gradient of its weight, row by row of a tile.
//
// With g channels a group it is a sum of g depthwise convolutions: the k-th one takes, in the lane of every output
// channel, the k-th input channel of that channel's group. A row of K weights and the sums of strip_pixels pixels
// stay in registers while the inner loop walks over the source pixels once, each multiplied by every weight that it
// meets.
#pragma once

#include "../../../cpu/tile.h"
#include "plan.h"

namespace elsa::hadamard_attention::ELSA_CAPABILITY {
namespace {

using namespace cpu::ELSA_CAPABILITY;

template <typename T>
constexpr int slice_width = 2 * lanes<T>;

// Vectors of a slice that the convolution works on at once.
constexpr int conv_vectors = vector_registers == 32 ? 2 : 1;
constexpr int strip_pixels = int(Plan::strip_pixels);

// The strips of a tile's rows; the last one may go beyond the map.
inline int64_t strips_of(const Tile& tile) { return divide_up(tile.columns, strip_pixels); }

// What a tile reads of the pooled product: the rows of the map in reach, and columns for whole strips, also outside the
// map. Compiled loops take all taps, the others those that meet the map.
inline Window window_of(const Plan& plan, const Tile& tile) {
  const Neighbourhood& around = plan.shape.neighbourhood;
  const int64_t first = around.first_source(tile.first_row), columns = strips_of(tile) * strip_pixels;
  const int64_t first_row = first > 0 ? first : 0;
  const int64_t end = smaller(tile.first_row + tile.rows + around.radius(), plan.tiling.height);
  return {{first_row, end - first_row},
          plan.compiled_taps > 0 ? Axis(tile.first_column, columns, around, 0, around.kernel_size)
                                 : Axis::of_taps_inside(tile.first_column, columns, around, plan.tiling.width)};
}

// What the convolution of a slice reads: a window, [slices][rows][columns][slice], and with Spread::memory the slice of
// it that is worked on, spread: [group_width][rows][columns][slice].
template <typename T>
struct ConvSource {
  using Lanes = typename Simd<T>::Lanes;
  static constexpr int64_t width = slice_width<T>;

  int64_t channels, group_width, kernel_size, dilation;
  Window around;
  int64_t row_step, slice_step;
  const T *window, *spread;
  Lanes group_start;

  ConvSource(const Plan& plan, const Window& window_around, const T* data)
      : channels(plan.shape.channels),
        group_width(plan.shape.group_width()),
        kernel_size(plan.shape.neighbourhood.kernel_size),
        dilation(plan.shape.neighbourhood.dilation),
        around(window_around),
        row_step(around.x.length * width),
        slice_step(around.y.length * row_step),
        window(data),
        spread(nullptr) {
    for (int lane = 0; lane < lanes<T>; ++lane) group_start[lane] = lane / int(group_width) * int(group_width);
  }

  // Where the i-th row of the kernel lies in the window for the row y of the map; negative if outside the map.
  int64_t row_offset(int64_t y, int64_t i) const {
    const int64_t row = y + (i - kernel_size / 2) * dilation - around.y.origin;
    return row < around.y.length ? row * row_step : -1;
  }

  // Spread `slice` into [group_width][rows][columns][slice].
  void spread_slice(int64_t slice, T* to) const {
    for (int64_t k = 0; k < group_width; ++k) {
      for (int64_t l = 0; l < width; ++l) {
        const int64_t channel = slice * width + l < channels ? slice * width + l : 0;
        const int64_t from = channel / group_width * group_width + k;
        const T* values = window + from / width * slice_step + from % width;
        for (int64_t pixel = 0; pixel < slice_step; pixel += width) to[k * slice_step + pixel + l] = values[pixel];
      }
    }
  }
};

// The k-th channels of the groups of the vectors that are worked on, from `channel` on.
template <typename T, Spread spread>
struct ConvValues {
  const T* from[conv_vectors];
  typename Simd<T>::Lanes pattern;

  __attribute__((always_inline)) ConvValues(const ConvSource<T>& source, int64_t channel, int64_t k, int64_t offset) {
    for (int v = 0; v < conv_vectors; ++v) {
      const int64_t first = channel + v * lanes<T>;
      if constexpr (spread == Spread::broadcast) {
        // Lanes of padding may take any group.
        const int64_t from_channel =
            (first < source.channels ? first / source.group_width * source.group_width : 0) + k;
        from[v] =
            source.window + from_channel / source.width * source.slice_step + from_channel % source.width + offset;
      } else if constexpr (spread == Spread::permutation) {
        from[v] = source.window + first / source.width * source.slice_step + first % source.width + offset;
        read_again(from[v]);
      } else {
        from[v] = source.spread + k * source.slice_step + first % source.width + offset;
      }
    }
    pattern = source.group_start + int(k);
  }

  __attribute__((always_inline)) Vector<T> operator()(int v, int64_t offset) const {
    if constexpr (spread == Spread::broadcast) {
      return broadcast<T>(from[v][offset]);
    } else if constexpr (spread == Spread::permutation) {
      return shuffle<T>(load(from[v] + offset), pattern);
    } else {
      return load(from[v] + offset);
    }
  }
};

// out[p] += Σ_kj weight[k][j] · value_k[p + j] for strip_pixels pixels; Taps is 0 where their number is not compiled.
template <typename T, int Taps, Spread spread>
ELSA_INLINE void conv_pixels(const ConvSource<T>& source, int64_t channel, int64_t offset, const T* weight, T* out) {
  constexpr int64_t width = slice_width<T>, L = lanes<T>;
  constexpr int V = conv_vectors, P = strip_pixels;
  Vector<T> sum[P][V] = {};
  for (int64_t k = 0; k < source.group_width; ++k, weight += source.kernel_size * width) {
    const ConvValues<T, spread> values(source, channel, k, offset);
    if constexpr (Taps > 0) {
      Vector<T> weights[Taps][V];
#pragma GCC unroll 16
      for (int j = 0; j < Taps; ++j) {
        for (int v = 0; v < V; ++v) weights[j][v] = load(weight + j * width + v * L);
      }
#pragma GCC unroll 16
      for (int s = 0; s < P + Taps - 1; ++s) {
        for (int v = 0; v < V; ++v) {
          const Vector<T> value = values(v, s * width);
#pragma GCC unroll 16
          for (int j = 0; j < Taps; ++j) {
            if (s - j >= 0 && s - j < P) {
              sum[s - j][v] += weights[j][v] * value;
              settle(sum[s - j][v]);
            }
          }
        }
      }
    } else {
      for (int64_t j = 0; j < source.around.x.taps; ++j) {
        for (int v = 0; v < V; ++v) {
          const Vector<T> weights = load(weight + (source.around.x.first_tap + j) * width + v * L);
#pragma GCC unroll 16
          for (int p = 0; p < P; ++p) sum[p][v] += weights * values(v, (p + j * source.dilation) * width);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int p = 0; p < P; ++p) {
    for (int v = 0; v < V; ++v) {
      T* to = out + p * width + v * L;
      store(to, load(to) + sum[p][v]);
    }
  }
}

// One row of a slice: out = bias + Σ weight · source, for `strips` strips. The weights of a slice
// lie as [K][group_width][K][slice].
template <typename T, int Taps, Spread spread>
void conv_row(const ConvSource<T>& source, int64_t slice, int64_t y, int64_t strips, const T* weight, const T* bias,
              T* out) {
  constexpr int64_t width = slice_width<T>, strip_step = strip_pixels * width;
  for (int64_t pixel = 0; pixel < strips * strip_pixels; ++pixel) {
    for (int v = 0; v < 2; ++v) store(out + pixel * width + v * lanes<T>, load(bias + v * lanes<T>));
  }
  for (int64_t i = 0; i < source.kernel_size; ++i, weight += source.group_width * source.kernel_size * width) {
    const int64_t row = source.row_offset(y, i);
    if (row < 0) continue;
    // A sum for every row of the kernel: one over all of them would lose more to rounding.
    for (int64_t strip = 0; strip < strips; ++strip) {
      for (int64_t first = 0; first < width; first += conv_vectors * lanes<T>) {
        conv_pixels<T, Taps, spread>(source, slice * width + first, row + strip * strip_step, weight + first,
                                     out + strip * strip_step + first);
      }
    }
  }
}

// sum[j] += Σ_p grad[p] · value_k[p + j] over the pixels of a row.
template <typename T, int Taps, Spread spread>
ELSA_INLINE void gradient_pixels(const ConvSource<T>& source, const ConvValues<T, spread>& values, int64_t strips,
                                 const T* grad, T* sum) {
  constexpr int64_t width = slice_width<T>, L = lanes<T>;
  constexpr int V = conv_vectors, P = strip_pixels;
  Vector<T> total[Taps > 0 ? Taps : 1][V] = {};
  for (int64_t strip = 0; strip < strips; ++strip, grad += P * width) {
    const int64_t offset = strip * P * width;
    Vector<T> grads[P][V];
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      for (int v = 0; v < V; ++v) grads[p][v] = load(grad + p * width + v * L);
    }
    if constexpr (Taps > 0) {
#pragma GCC unroll 16
      for (int s = 0; s < P + Taps - 1; ++s) {
        for (int v = 0; v < V; ++v) {
          const Vector<T> value = values(v, offset + s * width);
#pragma GCC unroll 16
          for (int j = 0; j < Taps; ++j) {
            if (s - j >= 0 && s - j < P) {
              total[j][v] += grads[s - j][v] * value;
              settle(total[j][v]);
            }
          }
        }
      }
    } else {
      for (int64_t j = 0; j < source.around.x.taps; ++j) {
        for (int v = 0; v < V; ++v) {
          Vector<T> part{};
#pragma GCC unroll 16
          for (int p = 0; p < P; ++p) part += grads[p][v] * values(v, offset + (p + j * source.dilation) * width);
          T* to = sum + (source.around.x.first_tap + j) * width + v * L;
          store(to, load(to) + part);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int j = 0; j < Taps; ++j) {
    for (int v = 0; v < V; ++v) {
      T* to = sum + j * width + v * L;
      store(to, load(to) + total[j][v]);
    }
  }
}

// Add the gradient of a slice's weights from one row of that of the output to `sum`, which lies as the weights do. What
// `grad` holds beyond the row is zero.
template <typename T, int Taps, Spread spread>
void gradient_row(const ConvSource<T>& source, int64_t slice, int64_t y, int64_t strips, const T* grad, T* sum) {
  constexpr int64_t width = slice_width<T>;
  for (int64_t i = 0; i < source.kernel_size; ++i) {
    const int64_t row = source.row_offset(y, i);
    for (int64_t k = 0; k < source.group_width; ++k, sum += source.kernel_size * width) {
      if (row < 0) continue;
      for (int64_t first = 0; first < width; first += conv_vectors * lanes<T>) {
        const ConvValues<T, spread> values(source, slice * width + first, k, row);
        gradient_pixels<T, Taps, spread>(source, values, strips, grad + first, sum + first);
      }
    }
  }
}

template <typename T>
struct ConvKernels {
  void (*row)(const ConvSource<T>&, int64_t slice, int64_t y, int64_t strips, const T* weight, const T* bias, T* out);
  void (*gradient)(const ConvSource<T>&, int64_t slice, int64_t y, int64_t strips, const T* grad, T* sum);
};

template <typename T, int Taps>
ConvKernels<T> conv_kernels_of(Spread spread) {
  switch (spread) {
    case Spread::broadcast:
      return {conv_row<T, Taps, Spread::broadcast>, gradient_row<T, Taps, Spread::broadcast>};
    case Spread::permutation:
      return {conv_row<T, Taps, Spread::permutation>, gradient_row<T, Taps, Spread::permutation>};
    default:
      return {conv_row<T, Taps, Spread::memory>, gradient_row<T, Taps, Spread::memory>};
  }
}

template <typename T>
ConvKernels<T> conv_kernels(const Plan& plan) {
  const Spread spread = plan.spread();
  if constexpr (sizeof(T) == sizeof(float)) {
    switch (plan.compiled_taps) {
      case 3:
        return conv_kernels_of<T, 3>(spread);
      case 5:
        return conv_kernels_of<T, 5>(spread);
      case 7:
        return conv_kernels_of<T, 7>(spread);
    }
  }
  return conv_kernels_of<T, 0>(spread);
}

}  // namespace
}  // namespace elsa::hadamard_attention::ELSA_CAPABILITY
