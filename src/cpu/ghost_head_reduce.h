// The reductions of ghost_head: gradients that are sums over channels (attn) or over pixels (the ghost matrices).
#pragma once

#include "tile.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

constexpr int reduce_pixels_at_once = 4;

ELSA_INLINE int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

// What a reduction adds up: for attn the sums over channels (of mul · grad · value, or of grad · value where there is
// no mul), for the matrices the sums over pixels.
template <bool Attn, bool Scaled, bool Mul, bool Add>
struct Wanted {
  static constexpr bool attn = Attn, scaled = Scaled, mul = Mul, add = Add;
};

template <typename T>
struct ReduceSums {
  T *attn, *mul, *add;
};

template <typename T, int Vectors, typename Want>
ELSA_INLINE void reduce_pixels(const TapWalk<T>& walk, int64_t window_pixel, const T* window, const T* attn,
                               const T* grad, ReduceSums<T> sums) {
  constexpr int L = lanes<T>, Pixels = reduce_pixels_at_once;
  Vector<T> g[Pixels][Vectors];
  for (int p = 0; p < Pixels; ++p) {
    for (int v = 0; v < Vectors; ++v) g[p][v] = load(grad + (p * Vectors + v) * L);
  }
  for (int64_t i = 0; i < walk.rows; ++i) {
    const T* w = window + i * walk.window_row;
    for (int64_t j = 0; j < walk.columns; ++j, w += walk.window_column) {
      const int64_t tap = i * walk.attn_row + j, matrix = tap * Vectors * L;
      Vector<T> sum_attn[Pixels] = {}, sum_mul[Vectors] = {}, sum_add[Vectors] = {};
      for (int v = 0; v < Vectors; ++v) {
        Vector<T> mul;
        if constexpr (Want::scaled) mul = load(walk.mul + matrix + v * L);
        for (int p = 0; p < Pixels; ++p) {
          const Vector<T> product = g[p][v] * load(w + p * window_pixel + v * L);
          if constexpr (Want::scaled) {
            sum_attn[p] += mul * product;
          } else if constexpr (Want::attn) {
            sum_attn[p] += product;
          }
          if constexpr (Want::mul) sum_mul[v] += product * attn[p * walk.attn_pixel + tap];
          if constexpr (Want::add) sum_add[v] += product;
        }
        if constexpr (Want::mul) store(sums.mul + matrix + v * L, load(sums.mul + matrix + v * L) + sum_mul[v]);
        if constexpr (Want::add) store(sums.add + matrix + v * L, load(sums.add + matrix + v * L) + sum_add[v]);
      }
      if constexpr (Want::attn) {
        T over_channels[Pixels];
        sum_lanes<T>(sum_attn, over_channels);
        for (int p = 0; p < Pixels; ++p) sums.attn[p * walk.attn_pixel + tap] += over_channels[p];
      }
    }
  }
}

template <typename T, int Vectors, typename Want>
void reduce_row(const TapWalk<T>& walk, int64_t columns, const T* window, const T* attn, const T* grad,
                ReduceSums<T> sums) {
  constexpr int64_t width = Vectors * lanes<T>;
  for (int64_t x = 0; x < columns; x += reduce_pixels_at_once) {
    const T* w = window + x * walk.window_pixel;
    const T* a = attn + x * walk.attn_pixel;
    const ReduceSums<T> here{sums.attn + x * walk.attn_pixel, sums.mul, sums.add};
    if (walk.window_pixel == width) {
      reduce_pixels<T, Vectors, Want>(walk, width, w, a, grad + x * width, here);
    } else {
      reduce_pixels<T, Vectors, Want>(walk, walk.window_pixel, w, a, grad + x * width, here);
    }
  }
}

// Copy a tile of the gradient into scratch rows of `columns` pixels, with zeros after the tile's own.
template <typename T>
void pack_rows(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width,
               const Tile& tile, int64_t columns, T* to) {
  for (int64_t y = 0; y < tile.rows; ++y, to += columns * width) {
    pack_window<T>(map, sample, first_channel, count, width,
                   {{tile.first_row + y, 1}, {tile.first_column, tile.columns}}, to);
    zero(to + tile.columns * width, (columns - tile.columns) * width);
  }
}

template <typename T, int Vectors, typename Want>
void reduce(const GhostHeadReduce& op, int64_t first_unit, int64_t last_unit) {
  constexpr int64_t width = Vectors * lanes<T>;
  const GhostHeadShape& shape = op.shape;
  const Tiling tiling = cpu::tiling(op);
  const int64_t taps = shape.taps();
  const Blocks blocks(shape, width);
  // The last pixels of a row are worked on beside zeros of the gradient.
  const int64_t most_columns = round_up(tiling.columns, reduce_pixels_at_once);
  Scratch<T> window(longest_axis(tiling.rows, shape.stride, shape.height, shape) *
                    longest_axis(most_columns, shape.stride, shape.width, shape) * width);
  Scratch<T> grad(tiling.rows * most_columns * width);
  Scratch<T> attn(Want::mul ? tiling.rows * most_columns * taps : 0);
  Scratch<T> sum_attn(Want::attn ? tiling.rows * most_columns * taps : 0);
  Scratch<T> mul(Want::scaled ? blocks.size() : 0);
  Scratch<T> sum_mul(Want::mul ? blocks.size() : 0);
  Scratch<T> sum_add(Want::add ? blocks.size() : 0);

  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t head = unit / (op.samples * op.chunks);
    const int64_t group = unit / op.chunks % op.samples, chunk = unit % op.chunks;
    if (Want::scaled) blocks.pack<T>(op.mul, group * op.mul.batch_stride, head, mul);
    if (Want::mul) zero<T>(sum_mul, blocks.size());
    if (Want::add) zero<T>(sum_add, blocks.size());

    for (int64_t index = chunk * tiles(op) / op.chunks; index < (chunk + 1) * tiles(op) / op.chunks; ++index) {
      const int64_t sample = group * (shape.batch / op.samples) + index / tiling.count();
      const Tile tile(tiling, index % tiling.count(), shape.out_height(), shape.out_width());
      const int64_t columns = round_up(tile.columns, reduce_pixels_at_once);
      const Window padded{{tile.first_row, tile.rows}, {tile.first_column, columns}};
      Window around{{tile.first_row, tile.rows, shape.stride, shape.height, shape},
                    {tile.first_column, tile.columns, shape.stride, shape.width, shape}};
      around.x.length += shape.stride * (columns - tile.columns);
      const int64_t first_tap = around.y.first_tap * shape.kernel_size + around.x.first_tap;
      const int64_t pitch = around.x.length * width;
      TapWalk<T> walk{};
      walk.rows = around.y.taps, walk.columns = around.x.taps;
      walk.window_row = shape.dilation * pitch, walk.window_column = shape.dilation * width;
      walk.window_pixel = shape.stride * width, walk.attn_row = shape.kernel_size, walk.attn_pixel = taps;
      if (Want::mul) pack_window<T>(op.attn, sample, head * taps, taps, taps, padded, attn);
      if (Want::attn) zero<T>(sum_attn, tile.rows * columns * taps);

      for (int64_t block = 0; block < blocks.count; ++block) {
        const int64_t channel = blocks.first_channel(head, block), channels = blocks.channels(block);
        const int64_t matrix = (block * taps + first_tap) * width;
        pack_window<T>(op.value, sample, channel, channels, width, around, window);
        pack_rows<T>(op.grad, sample, channel, channels, width, tile, columns, grad);
        walk.mul = mul + matrix;
        for (int64_t y = 0; y < tile.rows; ++y) {
          const int64_t row = y * columns * taps + first_tap;
          reduce_row<T, Vectors, Want>(walk, columns, window + y * shape.stride * pitch, attn + row,
                                       grad + y * columns * width,
                                       {sum_attn + row, sum_mul + matrix, sum_add + matrix});
        }
      }
      for (int64_t y = 0; Want::attn && y < tile.rows; ++y) {
        unpack_row<T>(op.grad_attn, sample, head * taps, taps, taps, tile.first_row + y, tile.first_column,
                      tile.columns, sum_attn + y * columns * taps);
      }
    }
    const int64_t partial = (group * op.chunks + chunk) * shape.channels * taps;
    if (Want::mul) blocks.unpack<T>(sum_mul, head, static_cast<T*>(op.partial_mul) + partial);
    if (Want::add) blocks.unpack<T>(sum_add, head, static_cast<T*>(op.partial_add) + partial);
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
