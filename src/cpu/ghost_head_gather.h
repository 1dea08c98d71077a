// The gather of ghost_head: K² weighted neighbours for every pixel. Forward, and the gradient of value.
#pragma once

#include "tile.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

#if ELSA_VECTOR_BYTES == 64
constexpr int gather_pixels_at_once = 7;  // × 2 vectors: 14 of 32 registers, and 7 divides the maps of Swin and VOLO
#else
constexpr int gather_pixels_at_once = 4;  // × 2 vectors: 8 of 16 registers
#endif

template <typename T, int Vectors, int Pixels, bool Mul, bool Add>
ELSA_INLINE void gather_pixels(const TapWalk<T>& walk, int64_t window_pixel, const T* window, const T* attn, T* out) {
  constexpr int L = lanes<T>;
  Vector<T> sum[Pixels][Vectors] = {};
  for (int64_t i = 0; i < walk.rows; ++i) {
    const T* w = window + i * walk.window_row;
    const T* a = attn + i * walk.attn_row;
    int64_t matrix = i * walk.matrix_row;
    for (int64_t j = 0; j < walk.columns; ++j) {
      Vector<T> mul[Vectors], add[Vectors];
      for (int v = 0; v < Vectors; ++v) {
        if constexpr (Mul) mul[v] = load(walk.mul + matrix + v * L);
        if constexpr (Add) add[v] = load(walk.add + matrix + v * L);
      }
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) {
        const T map = a[p * walk.attn_pixel];
        for (int v = 0; v < Vectors; ++v) {
          Vector<T> weight;
          if constexpr (Mul && Add) {
            weight = mul[v] * map + add[v];
          } else if constexpr (Mul) {
            weight = mul[v] * map;
          } else if constexpr (Add) {
            weight = add[v] + map;
          } else {
            weight = Vector<T>{} + map;
          }
          sum[p][v] += weight * load(w + p * window_pixel + v * L);
        }
      }
      w += walk.window_column;
      a += walk.attn_column;
      matrix += walk.matrix_column;
    }
  }
  for (int p = 0; p < Pixels; ++p) {
    for (int v = 0; v < Vectors; ++v) {
      store(out + (p * Vectors + v) * L, sum[p][v]);
    }
  }
}

// Cut a row of pixels into groups whose sizes differ by at most one, and call f(first, pixels) on each.
template <typename Function>
ELSA_INLINE void for_each_group(int64_t columns, const Function& f) {
  const int64_t groups = (columns + gather_pixels_at_once - 1) / gather_pixels_at_once;
  int64_t x = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const int64_t pixels = columns / groups + (group < columns % groups);
    f(x, pixels);
    x += pixels;
  }
}

template <typename T, int Vectors, int Pixels, bool Mul, bool Add>
ELSA_INLINE void gather_group(const TapWalk<T>& walk, int64_t pixels, const T* window, const T* attn, T* out) {
  if constexpr (Pixels > 0) {
    constexpr int64_t width = Vectors * lanes<T>;
    if (pixels != Pixels) {
      gather_group<T, Vectors, Pixels - 1, Mul, Add>(walk, pixels, window, attn, out);
    } else if (walk.window_pixel == width) {
      gather_pixels<T, Vectors, Pixels, Mul, Add>(walk, width, window, attn, out);
    } else {
      gather_pixels<T, Vectors, Pixels, Mul, Add>(walk, walk.window_pixel, window, attn, out);
    }
  }
}

template <typename T, int Vectors, bool Mul, bool Add>
void gather_row(const TapWalk<T>& walk, int64_t columns, const T* window, const T* attn, T* out) {
  for_each_group(columns, [&](int64_t x, int64_t pixels) {
    gather_group<T, Vectors, gather_pixels_at_once, Mul, Add>(walk, pixels, window + x * walk.window_pixel,
                                                              attn + x * walk.attn_pixel, out + x * Vectors * lanes<T>);
  });
}

template <typename T, int Vectors, bool Mul, bool Add>
void gather(const GhostHeadGather& op, int64_t first_unit, int64_t last_unit) {
  constexpr int64_t width = Vectors * lanes<T>;
  const GhostHeadShape& shape = op.shape;
  const Tiling tiling = cpu::tiling(op);
  const int64_t taps = shape.taps(), K = shape.kernel_size;
  const int64_t step = op.adjoint ? 1 : shape.stride, spacing = op.adjoint ? shape.stride : 1;
  const int64_t source_height = (op.source.height - 1) * spacing + 1;
  const int64_t source_width = (op.source.width - 1) * spacing + 1;
  const Blocks blocks(shape, width);
  const bool per_sample = (Mul && op.mul.batch_stride != 0) || (Add && op.add.batch_stride != 0);
  const int64_t window_pixels =
      longest_axis(tiling.rows, step, source_height, shape) * longest_axis(tiling.columns, step, source_width, shape);
  Scratch<T> window(window_pixels * width), row(tiling.columns * width);
  Scratch<T> attn((op.adjoint ? window_pixels : tiling.rows * tiling.columns) * taps);
  Scratch<T> mul(Mul ? blocks.size() : 0), add(Add ? blocks.size() : 0);

  int64_t packed_head = -1, packed_sample = -1;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t head = unit / (shape.batch * tiling.count());
    const int64_t sample = unit / tiling.count() % shape.batch;
    if (head != packed_head || (per_sample && sample != packed_sample)) {
      if (Mul) blocks.pack<T>(op.mul, sample * op.mul.batch_stride, head, mul);
      if (Add) blocks.pack<T>(op.add, sample * op.add.batch_stride, head, add);
      packed_head = head, packed_sample = sample;
    }

    const Tile tile(tiling, unit % tiling.count(), op.out.height, op.out.width);
    const Window around{{tile.first_row, tile.rows, step, source_height, shape},
                        {tile.first_column, tile.columns, step, source_width, shape},
                        spacing};
    const int64_t pitch = around.x.length;  // pixels in a row of the window
    TapWalk<T> walk;
    walk.rows = around.y.taps, walk.columns = around.y.taps == 0 ? 0 : around.x.taps;
    walk.window_row = shape.dilation * pitch * width, walk.window_column = shape.dilation * width;
    walk.window_pixel = step * width, walk.attn_pixel = taps;
    int64_t first_tap = around.y.first_tap * K + around.x.first_tap, attn_pitch;
    if (op.adjoint) {
      first_tap = taps - 1 - first_tap;
      pack_window<T>(op.attn, sample, head * taps, taps, taps, around, attn);
      attn_pitch = pitch * taps;
      walk.attn_row = shape.dilation * attn_pitch - K, walk.attn_column = shape.dilation * taps - 1;
      walk.matrix_row = -K * width, walk.matrix_column = -width;
    } else {
      const Window inside{{tile.first_row, tile.rows}, {tile.first_column, tile.columns}};
      pack_window<T>(op.attn, sample, head * taps, taps, taps, inside, attn);
      attn_pitch = tile.columns * taps;
      walk.attn_row = K, walk.attn_column = 1;
      walk.matrix_row = K * width, walk.matrix_column = width;
    }

    for (int64_t block = 0; block < blocks.count; ++block) {
      const int64_t channel = blocks.first_channel(head, block), count = blocks.channels(block);
      pack_window<T>(op.source, sample, channel, count, width, around, window);
      walk.mul = mul + (block * taps + first_tap) * width;
      walk.add = add + (block * taps + first_tap) * width;
      for (int64_t y = 0; y < tile.rows; ++y) {
        gather_row<T, Vectors, Mul, Add>(walk, tile.columns, window + y * step * pitch * width,
                                         attn + y * attn_pitch + first_tap, row);
        unpack_row<T>(op.out, sample, channel, count, width, tile.first_row + y, tile.first_column, tile.columns, row);
      }
    }
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
