// The grouped K × K convolution of hadamard_attention, its adjoint, and the gradient of its weight.
//
// With g channels a group it is a sum of g depthwise convolutions: the k-th one takes, in the lane of every output
// channel, the k-th input channel of that channel's group. Where a vector holds whole groups of 4 or 8 channels, the
// convolution spreads the k-th channel over its group in registers; otherwise windows are packed spread, once for every
// k.
#pragma once

#include "ghost_head_gather.h"
#include "ghost_head_reduce.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

template <typename T>
struct ConvWalk {
  TapWalk<T> taps;
  int64_t group_width, window_step, weight_step;  // between the depthwise convolutions
};

// Group is the number of channels a group where they are spread in registers, and 0 where they lie spread in `window`.
template <typename T, int Group, int Pixels>
ELSA_INLINE void conv_pixels(const ConvWalk<T>& walk, const T* bias, const T* window, T* out) {
  constexpr int L = lanes<T>, Vectors = 2;
  const int64_t group_width = Group == 0 ? walk.group_width : Group;
  for (int p = 0; p < Pixels; ++p) {
    for (int v = 0; v < Vectors; ++v) store(out + (p * Vectors + v) * L, load(bias + v * L));
  }
  for (int64_t i = 0; i < walk.taps.rows; ++i) {
    const T* w = window + i * walk.taps.window_row;
    const T* weight = walk.taps.mul + i * walk.taps.matrix_row;
    // A sum for every row of taps: one over all of them would lose more to rounding.
    Vector<T> sum[Pixels][Vectors] = {};
    for (int64_t j = 0; j < walk.taps.columns; ++j) {
#pragma GCC unroll 8
      for (int64_t k = 0; k < group_width; ++k) {
        const Vector<T> weights[Vectors] = {load(weight + k * walk.weight_step),
                                            load(weight + k * walk.weight_step + L)};
#pragma GCC unroll 8
        for (int p = 0; p < Pixels; ++p) {
          for (int v = 0; v < Vectors; ++v) {
            if constexpr (Group == 0) {
              sum[p][v] += weights[v] * load(w + k * walk.window_step + (p * Vectors + v) * L);
            } else {
              sum[p][v] += weights[v] * spread<T>(load(w + (p * Vectors + v) * L), Group, int(k));
            }
          }
        }
      }
      w += walk.taps.window_column;
      weight += walk.taps.matrix_column;
    }
    for (int p = 0; p < Pixels; ++p) {
      for (int v = 0; v < Vectors; ++v) {
        T* to = out + (p * Vectors + v) * L;
        store(to, load(to) + sum[p][v]);
      }
    }
  }
}

template <typename T, int Group, int Pixels>
ELSA_INLINE void conv_group(const ConvWalk<T>& walk, int64_t pixels, const T* bias, const T* window, T* out) {
  if constexpr (Pixels > 0) {
    pixels == Pixels ? conv_pixels<T, Group, Pixels>(walk, bias, window, out)
                     : conv_group<T, Group, Pixels - 1>(walk, pixels, bias, window, out);
  }
}

// What a pass over the convolution's channels and tiles shares.
template <typename T>
struct ConvPlan {
  static constexpr int64_t width = 2 * lanes<T>;
  const GroupedConv& op;
  GhostHeadShape shape;  // of a depthwise convolution: what cuts maps and walks taps asks for
  int64_t taps, group_width, most_window;

  explicit ConvPlan(const GroupedConv& conv)
      : op(conv),
        shape{conv.batch, conv.channels, conv.in.height, conv.in.width, 1, conv.kernel_size, conv.dilation, 1},
        taps(shape.taps()),
        group_width(conv.channels / conv.groups) {
    const Tiling tiling = conv.tiling();
    most_window = longest_axis(tiling.rows, 1, shape.height, shape) *
                  longest_axis(round_up(tiling.columns, reduce_pixels_at_once), 1, shape.width, shape) * width;
  }

  int64_t channels(int64_t block) const {
    const int64_t left = op.channels - block * width;
    return left < width ? left : width;
  }

  // Copy a window of a block's channels, spread, into [group_width][pixels][width].
  void pack_spread(int64_t sample, int64_t block, const Window& window, T* to) const {
    const Inside rows = window.inside(window.y, op.in.height), columns = window.inside(window.x, op.in.width);
    const int64_t step = window.pixels() * width, first = block * width;
    if (rows.count * columns.count < window.pixels()) zero(to, group_width * step);
    const T* from = static_cast<const T*>(op.in.data) + sample * op.in.batch_stride + rows.pixel * op.in.row_stride +
                    columns.pixel * op.in.column_stride;
    to += (rows.position * window.x.length + columns.position) * width;
    for (int64_t v = 0; v < rows.count; ++v) {
      for (int64_t u = 0; u < columns.count; ++u) {
        spread_pixel(from + v * op.in.row_stride + u * op.in.column_stride, first, channels(block), step,
                     to + (v * window.x.length + u) * width);
      }
    }
  }

  // Copy the channels of one pixel from `first` on, spread, into `group_width` places that lie `step` apart.
  void spread_pixel(const T* pixel, int64_t first, int64_t count, int64_t step, T* to) const {
    if (lanes<T> % group_width == 0 && count == width) {
      for (int vector = 0; vector < 2; ++vector) {
        const Vector<T> x = load_unaligned(pixel + first + vector * lanes<T>);
        for (int64_t k = 0; k < group_width; ++k) {
          store(to + k * step + vector * lanes<T>, spread<T>(x, int(group_width), int(k)));
        }
      }
    } else {
      for (int64_t k = 0; k < group_width; ++k) {
        for (int64_t l = 0; l < count; ++l) to[k * step + l] = pixel[(first + l) / group_width * group_width + k];
        zero(to + k * step + count, width - count);
      }
    }
  }

  // Copy a block's weights into [group_width][taps][width]; those of the adjoint are transposed and turned around.
  void pack_weight(int64_t block, T* to) const {
    const T* weight = static_cast<const T*>(op.weight);
    for (int64_t k = 0; k < group_width; ++k) {
      for (int64_t tap = 0; tap < taps; ++tap, to += width) {
        for (int64_t l = 0; l < width; ++l) {
          const int64_t channel = block * width + l, group = channel / group_width * group_width;
          to[l] = channel >= op.channels ? T(0)
                  : op.adjoint           ? weight[((group + k) * group_width + channel - group) * taps + taps - 1 - tap]
                                         : weight[(channel * group_width + k) * taps + tap];
        }
      }
    }
  }

  ConvWalk<T> walk(const Window& around) const {
    ConvWalk<T> walk{{}, group_width, around.pixels() * width, taps * width};
    walk.taps.rows = around.y.taps, walk.taps.columns = around.x.taps;
    walk.taps.window_row = shape.dilation * around.x.length * width;
    walk.taps.window_column = shape.dilation * width, walk.taps.window_pixel = width;
    walk.taps.matrix_row = shape.kernel_size * width, walk.taps.matrix_column = width;
    walk.taps.attn_row = shape.kernel_size;
    return walk;
  }
};

template <typename T, int Group>
void conv_in_groups(const GroupedConv& op, int64_t first_unit, int64_t last_unit) {
  const ConvPlan<T> plan(op);
  constexpr int64_t width = plan.width;
  const Tiling tiling = op.tiling();
  Scratch<T> window((Group == 0 ? plan.group_width : 1) * plan.most_window);
  Scratch<T> weight(plan.group_width * plan.taps * width), bias(width), row(tiling.columns * width);
  int64_t packed_block = -1;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t block = unit / op.tiles(), sample = unit % op.tiles() / tiling.count();
    const int64_t channels = plan.channels(block);
    if (block != packed_block) {
      plan.pack_weight(block, weight);
      zero<T>(bias, width);
      if (op.bias != nullptr) {
        std::memcpy(bias, static_cast<const T*>(op.bias) + block * width, std::size_t(channels) * sizeof(T));
      }
      packed_block = block;
    }
    const Tile tile(tiling, unit % tiling.count(), op.out.height, op.out.width);
    const Window around{{tile.first_row, tile.rows, 1, plan.shape.height, plan.shape},
                        {tile.first_column, tile.columns, 1, plan.shape.width, plan.shape}};
    if (Group == 0) {
      plan.pack_spread(sample, block, around, window);
    } else {
      pack_window<T>(op.in, sample, block * width, channels, width, around, window);
    }
    ConvWalk<T> walk = plan.walk(around);
    walk.taps.mul = weight + (around.y.first_tap * plan.shape.kernel_size + around.x.first_tap) * width;
    for (int64_t y = 0; y < tile.rows; ++y) {
      for_each_group(tile.columns, [&](int64_t x, int64_t pixels) {
        conv_group<T, Group, gather_pixels_at_once>(walk, pixels, bias, window + (y * around.x.length + x) * width,
                                                    row + x * width);
      });
      unpack_row<T>(op.out, sample, block * width, channels, width, tile.first_row + y, tile.first_column, tile.columns,
                    row);
    }
  }
}

template <typename T>
void conv_as(const GroupedConv& op, int64_t first_unit, int64_t last_unit) {
  const int64_t group_width = op.channels / op.groups;
  if constexpr (lanes<T> % 8 == 0) {
    if (group_width == 8) return conv_in_groups<T, 8>(op, first_unit, last_unit);
  }
  if constexpr (lanes<T> % 4 == 0) {
    if (group_width == 4) return conv_in_groups<T, 4>(op, first_unit, last_unit);
  }
  conv_in_groups<T, 0>(op, first_unit, last_unit);
}

// Partial sums of the gradients of weight, [chunks][C][C/groups][K²], and of bias, [chunks][C].
template <typename T>
void conv_weight_gradient_as(const GroupedConvWeightGradient& gradient, int64_t first_unit, int64_t last_unit) {
  const GroupedConv& op = gradient.conv;
  const ConvPlan<T> plan(op);
  constexpr int64_t width = plan.width;
  const int64_t taps = plan.taps, group_width = plan.group_width;
  const Tiling tiling = op.tiling();
  const int64_t most_columns = round_up(tiling.columns, reduce_pixels_at_once);
  Scratch<T> window(group_width * plan.most_window), grad(tiling.rows * most_columns * width);
  Scratch<T> sum(group_width * taps * width), bias(width);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t block = unit / gradient.chunks, chunk = unit % gradient.chunks;
    const int64_t channels = plan.channels(block);
    zero<T>(sum, group_width * taps * width);
    zero<T>(bias, width);
    for (int64_t index = chunk * op.tiles() / gradient.chunks; index < (chunk + 1) * op.tiles() / gradient.chunks;
         ++index) {
      const int64_t sample = index / tiling.count();
      const Tile tile(tiling, index % tiling.count(), op.out.height, op.out.width);
      const int64_t columns = round_up(tile.columns, reduce_pixels_at_once);
      Window around{{tile.first_row, tile.rows, 1, plan.shape.height, plan.shape},
                    {tile.first_column, tile.columns, 1, plan.shape.width, plan.shape}};
      around.x.length += columns - tile.columns;
      plan.pack_spread(sample, block, around, window);
      pack_rows<T>(op.out, sample, block * width, channels, width, tile, columns, grad);
      const ConvWalk<T> walk = plan.walk(around);
      const int64_t first_tap = around.y.first_tap * plan.shape.kernel_size + around.x.first_tap;
      for (int64_t k = 0; k < group_width; ++k) {
        for (int64_t y = 0; y < tile.rows; ++y) {
          reduce_row<T, 2, Wanted<false, false, false, true>>(
              walk.taps, columns, window + k * walk.window_step + y * around.x.length * width, nullptr,
              grad + y * columns * width, {nullptr, nullptr, sum + (k * taps + first_tap) * width});
        }
      }
      for (int64_t pixel = 0; pixel < tile.rows * columns; ++pixel) {
        for (int64_t l = 0; l < width; ++l) bias[l] += grad[pixel * width + l];
      }
    }
    T* to = static_cast<T*>(gradient.partial_weight) + (chunk * op.channels + block * width) * group_width * taps;
    for (int64_t l = 0; l < channels; ++l) {
      for (int64_t k = 0; k < group_width; ++k) {
        for (int64_t tap = 0; tap < taps; ++tap) *to++ = sum[(k * taps + tap) * width + l];
      }
    }
    std::memcpy(static_cast<T*>(gradient.partial_bias) + chunk * op.channels + block * width, bias,
                std::size_t(channels) * sizeof(T));
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
