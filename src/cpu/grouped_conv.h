// The grouped K × K convolution of hadamard_attention and the gradient of its weight, row by row of a tile.
//
// With g channels a group it is a sum of g depthwise convolutions: the k-th one takes, in the lane of every output
// channel, the k-th input channel of that channel's group. A row of K weights and the sums of pixels_at_once pixels
// stay in registers while the inner loop walks over the source pixels once, each multiplied by every weight that it
// meets.
#pragma once

#include "elsa/hadamard_attention.h"
#include "pack.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

template <typename T>
constexpr int block_width = 2 * lanes<T>;

// Vectors of a block that the convolution works on at once: AVX-512 has 32 registers, the others have 16.
constexpr int conv_vectors = ELSA_VECTOR_BYTES == 64 ? 2 : 1;
constexpr int group_pixels = int(HadamardPlan::pixels_at_once);

// The pixels of one tile.
struct HadamardTile {
  int64_t sample, first_row, rows, first_column, columns;

  HadamardTile(const HadamardPlan& plan, int64_t unit) : sample(unit / (plan.down * plan.across)) {
    first_row = unit / plan.across % plan.down * plan.rows;
    first_column = unit % plan.across * plan.columns;
    const int64_t rows_left = plan.shape.out_height() - first_row;
    const int64_t columns_left = plan.shape.out_width() - first_column;
    rows = plan.rows < rows_left ? plan.rows : rows_left;
    columns = plan.columns < columns_left ? plan.columns : columns_left;
  }

  int64_t groups() const { return (columns + group_pixels - 1) / group_pixels; }
};

// What a tile reads: the rows of the map in reach, and columns from `origin` on, zero outside the map, for the kernel's
// columns that meet the map.
struct HadamardWindow {
  int64_t first_row, rows, origin, length, first_tap, taps;

  HadamardWindow(const HadamardPlan& plan, const HadamardTile& tile) : first_tap(0), taps(plan.shape.kernel_size) {
    const int64_t radius = taps / 2, step = plan.shape.dilation, columns = tile.groups() * group_pixels;
    const int64_t height = plan.shape.out_height(), end = tile.first_row + tile.rows + radius * step;
    first_row = tile.first_row > radius * step ? tile.first_row - radius * step : 0;
    rows = (end < height ? end : height) - first_row;
    const auto outside = [&](int64_t tap) {
      const int64_t low = tile.first_column + (tap - radius) * step;
      return low + columns <= 0 || low >= plan.shape.out_width();
    };
    if (plan.compiled_taps() == 0) {
      for (; outside(first_tap); ++first_tap) --taps;
      for (; outside(first_tap + taps - 1); --taps) {
      }
    }
    origin = tile.first_column + (first_tap - radius) * step;
    length = columns + (taps - 1) * step;
  }
};

// What the convolution of a block reads: a window, [blocks][rows][columns][block], and with Spread::memory the block of
// it that is worked on, spread: [group_width][rows][columns][block].
template <typename T>
struct ConvSource {
  using Lanes = typename Simd<T>::Lanes;
  static constexpr int64_t width = block_width<T>;

  int64_t channels, group_width, kernel_size, dilation;
  HadamardWindow around;
  int64_t row_step, block_step;
  const T *window, *spread;
  Lanes group_start;

  ConvSource(const HadamardPlan& plan, const HadamardWindow& window_around, const T* data)
      : channels(plan.shape.channels),
        group_width(plan.group_width()),
        kernel_size(plan.shape.kernel_size),
        dilation(plan.shape.dilation),
        around(window_around),
        row_step(around.length * width),
        block_step(around.rows * row_step),
        window(data),
        spread(nullptr) {
    for (int lane = 0; lane < lanes<T>; ++lane) group_start[lane] = lane / int(group_width) * int(group_width);
  }

  // Where the i-th row of the kernel lies in the window for the row y of the map; negative if outside the map.
  int64_t row_offset(int64_t y, int64_t i) const {
    const int64_t row = y + (i - kernel_size / 2) * dilation - around.first_row;
    return row < around.rows ? row * row_step : -1;
  }

  // Spread `block` into [group_width][rows][columns][block].
  void spread_block(int64_t block, T* to) const {
    for (int64_t k = 0; k < group_width; ++k) {
      for (int64_t l = 0; l < width; ++l) {
        const int64_t channel = block * width + l < channels ? block * width + l : 0;
        const int64_t from = channel / group_width * group_width + k;
        const T* values = window + from / width * block_step + from % width;
        for (int64_t pixel = 0; pixel < block_step; pixel += width) to[k * block_step + pixel + l] = values[pixel];
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
            source.window + from_channel / source.width * source.block_step + from_channel % source.width + offset;
      } else if constexpr (spread == Spread::permutation) {
        from[v] = source.window + first / source.width * source.block_step + first % source.width + offset;
        read_again(from[v]);
      } else {
        from[v] = source.spread + k * source.block_step + first % source.width + offset;
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

// out[p] += Σ_kj weight[k][j] · value_k[p + j] for pixels_at_once pixels; Taps is 0 where their number is not compiled.
template <typename T, int Taps, Spread spread>
ELSA_INLINE void conv_pixels(const ConvSource<T>& source, int64_t channel, int64_t offset, const T* weight, T* out) {
  constexpr int64_t width = block_width<T>, L = lanes<T>;
  constexpr int V = conv_vectors, P = group_pixels;
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
      for (int64_t j = 0; j < source.around.taps; ++j) {
        for (int v = 0; v < V; ++v) {
          const Vector<T> weights = load(weight + (source.around.first_tap + j) * width + v * L);
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

// One row of a block: out = bias + Σ weight · source, for `groups` times pixels_at_once pixels. The weights of a block
// lie as [K][group_width][K][block].
template <typename T, int Taps, Spread spread>
void conv_row(const ConvSource<T>& source, int64_t block, int64_t y, int64_t groups, const T* weight, const T* bias,
              T* out) {
  constexpr int64_t width = block_width<T>, group_step = group_pixels * width;
  for (int64_t pixel = 0; pixel < groups * group_pixels; ++pixel) {
    for (int v = 0; v < 2; ++v) store(out + pixel * width + v * lanes<T>, load(bias + v * lanes<T>));
  }
  for (int64_t i = 0; i < source.kernel_size; ++i, weight += source.group_width * source.kernel_size * width) {
    const int64_t row = source.row_offset(y, i);
    if (row < 0) continue;
    // A sum for every row of the kernel: one over all of them would lose more to rounding.
    for (int64_t group = 0; group < groups; ++group) {
      for (int64_t first = 0; first < width; first += conv_vectors * lanes<T>) {
        conv_pixels<T, Taps, spread>(source, block * width + first, row + group * group_step, weight + first,
                                     out + group * group_step + first);
      }
    }
  }
}

// sum[j] += Σ_p grad[p] · value_k[p + j] over the pixels of a row.
template <typename T, int Taps, Spread spread>
ELSA_INLINE void gradient_pixels(const ConvSource<T>& source, const ConvValues<T, spread>& values, int64_t groups,
                                 const T* grad, T* sum) {
  constexpr int64_t width = block_width<T>, L = lanes<T>;
  constexpr int V = conv_vectors, P = group_pixels;
  Vector<T> total[Taps > 0 ? Taps : 1][V] = {};
  for (int64_t group = 0; group < groups; ++group, grad += P * width) {
    const int64_t offset = group * P * width;
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
      for (int64_t j = 0; j < source.around.taps; ++j) {
        for (int v = 0; v < V; ++v) {
          Vector<T> part{};
#pragma GCC unroll 16
          for (int p = 0; p < P; ++p) part += grads[p][v] * values(v, offset + (p + j * source.dilation) * width);
          T* to = sum + (source.around.first_tap + j) * width + v * L;
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

// Add the gradient of a block's weights from one row of that of the output to `sum`, which lies as the weights do. What
// `grad` holds beyond the row is zero.
template <typename T, int Taps, Spread spread>
void gradient_row(const ConvSource<T>& source, int64_t block, int64_t y, int64_t groups, const T* grad, T* sum) {
  constexpr int64_t width = block_width<T>;
  for (int64_t i = 0; i < source.kernel_size; ++i) {
    const int64_t row = source.row_offset(y, i);
    for (int64_t k = 0; k < source.group_width; ++k, sum += source.kernel_size * width) {
      if (row < 0) continue;
      for (int64_t first = 0; first < width; first += conv_vectors * lanes<T>) {
        const ConvValues<T, spread> values(source, block * width + first, k, row);
        gradient_pixels<T, Taps, spread>(source, values, groups, grad + first, sum + first);
      }
    }
  }
}

template <typename T>
struct ConvKernels {
  void (*row)(const ConvSource<T>&, int64_t block, int64_t y, int64_t groups, const T* weight, const T* bias, T* out);
  void (*gradient)(const ConvSource<T>&, int64_t block, int64_t y, int64_t groups, const T* grad, T* sum);
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
ConvKernels<T> conv_kernels(const HadamardPlan& plan) {
  const Spread spread = plan.spread();
  if constexpr (sizeof(T) == sizeof(float)) {
    switch (plan.compiled_taps()) {
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
}  // namespace elsa::cpu::ELSA_CAPABILITY
