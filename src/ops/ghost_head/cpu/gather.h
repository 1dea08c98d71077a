// The gather of ghost_head: K² weighted neighbours for every pixel. Forward, and the gradient of value.
#pragma once

#include "plan.h"
#include "slices.h"

namespace elsa::ghost_head::ELSA_CAPABILITY {
namespace {

// × 2 vectors: 14 of 32 registers, or 8 of 16; and 7 divides the maps of Swin and VOLO.
constexpr int gather_pixels_at_once = vector_registers == 32 ? 7 : 4;

// What the inner loop reads and writes: a window of the source, the attention, the static matrices, the result.
template <typename T>
struct GatherPointers {
  const T *window, *attn, *mul, *add;
  T* out;
};

// A tile, and the steps from one of its pixels to the next.
template <typename T>
struct GatherTile {
  GatherPointers<T> first;
  int64_t rows, columns;
  int64_t window_row, window_column, attn_row, attn_column, out_row, out_column;

  GatherPointers<T> at(int64_t y, int64_t x) const {
    return {first.window + y * window_row + x * window_column, first.attn + y * attn_row + x * attn_column, first.mul,
            first.add, first.out + y * out_row + x * out_column};
  }
};

// How the taps are walked: those in range, and the steps from one to the next.
struct TapWalk {
  int64_t rows, columns;
  int64_t window_row, window_column, attn_row, attn_column, matrix_row, matrix_column;
};

// K is the kernel size where all its taps are in range and the pixels of the window are neighbours, or 0 for what
// `walk` and `tile` say.
template <typename T, int Vectors, int K, int Pixels, bool Mul, bool Add>
ELSA_INLINE void gather_pixels(const TapWalk& walk, const GatherTile<T>& tile, GatherPointers<T> here) {
  constexpr int L = lanes<T>;
  const int64_t rows = K == 0 ? walk.rows : K, columns = K == 0 ? walk.columns : K;
  const int64_t window_column = K == 0 ? tile.window_column : Vectors * L, attn_column = tile.attn_column;
  Vector<T> sum[Pixels][Vectors] = {};
  for (int64_t i = 0; i < rows; ++i) {
    const T* window = here.window + i * walk.window_row;
    // Two pointers: with one there are more multiples of the step than registers to hold them.
    const T* attn[2] = {here.attn + i * walk.attn_row, here.attn + i * walk.attn_row + 4 * tile.attn_column};
    int64_t matrix = i * walk.matrix_row;
    for (int64_t j = 0; j < columns; ++j) {
      Vector<T> mul[Vectors], add[Vectors];
      for (int v = 0; v < Vectors; ++v) {
        if constexpr (Mul) mul[v] = load(here.mul + matrix + v * L);
        if constexpr (Add) add[v] = load(here.add + matrix + v * L);
      }
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) {
        const T map = attn[p / 4][p % 4 * attn_column];
        for (int v = 0; v < Vectors; ++v) {
          Vector<T> weight;
          if constexpr (Mul && Add) {
            weight = mul[v] * map + add[v];
          } else if constexpr (Mul) {
            weight = mul[v] * map;
          } else if constexpr (Add) {
            weight = add[v] + map;
          } else {
            weight = broadcast(map);
          }
          sum[p][v] += weight * load(window + p * window_column + v * L);
        }
      }
      window += walk.window_column;
      attn[0] += walk.attn_column, attn[1] += walk.attn_column;
      matrix += walk.matrix_column;
    }
  }
  for (int p = 0; p < Pixels; ++p) {
    for (int v = 0; v < Vectors; ++v) store_unaligned(here.out + p * tile.out_column + v * L, sum[p][v]);
  }
}

// What the next unit of work reads.
struct GatherAhead {
  Prefetch source, attn;

  void fetch(int64_t pixels) {
    source.fetch(pixels);
    attn.fetch(pixels);
  }
};

// A strip of the tile, Pixels wide or less, from top to bottom: what one row reads of the window stays in the
// first-level cache for the next.
template <typename T, int Vectors, int K, int Pixels, bool Mul, bool Add>
ELSA_INLINE void gather_strip(const TapWalk& walk, const GatherTile<T>& tile, int64_t x, int64_t pixels,
                              GatherAhead& ahead) {
  if constexpr (Pixels > 0) {
    if (pixels != Pixels) return gather_strip<T, Vectors, K, Pixels - 1, Mul, Add>(walk, tile, x, pixels, ahead);
    for (int64_t y = 0; y < tile.rows; ++y) {
      gather_pixels<T, Vectors, K, Pixels, Mul, Add>(walk, tile, tile.at(y, x));
      ahead.fetch(Pixels);
    }
  }
}

// The tile in strips whose widths differ by at most one.
template <typename T, int Vectors, int K, bool Mul, bool Add>
__attribute__((noinline)) void gather_strips(const TapWalk& walk, const GatherTile<T>& tile, GatherAhead& ahead) {
  const int64_t strips = (tile.columns + gather_pixels_at_once - 1) / gather_pixels_at_once;
  for (int64_t strip = 0; strip < strips; ++strip) {
    const int64_t x = strip * tile.columns / strips, pixels = (strip + 1) * tile.columns / strips - x;
    gather_strip<T, Vectors, K, gather_pixels_at_once, Mul, Add>(walk, tile, x, pixels, ahead);
  }
}

// `compiled_taps` is that of the plan where all taps are in range, else 0.
template <typename T, int Vectors, bool Mul, bool Add>
void gather_tile(const TapWalk& walk, int64_t compiled_taps, const GatherTile<T>& tile, GatherAhead& ahead) {
  switch (compiled_taps) {
    case 3:
      return gather_strips<T, Vectors, 3, Mul, Add>(walk, tile, ahead);
    case 5:
      return gather_strips<T, Vectors, 5, Mul, Add>(walk, tile, ahead);
    case 7:
      return gather_strips<T, Vectors, 7, Mul, Add>(walk, tile, ahead);
    default:
      return gather_strips<T, Vectors, 0, Mul, Add>(walk, tile, ahead);
  }
}

template <typename T, int Vectors, bool Mul, bool Add>
void gather(const Gather& pass, const Plan& plan, int64_t first_unit, int64_t last_unit) {
  constexpr int64_t width = Vectors * lanes<T>;
  const Shape& shape = pass.shape;
  const cpu::Tiling& tiling = plan.tiling;
  const int64_t K = plan.neighbourhood.kernel_size, dilation = plan.neighbourhood.dilation;
  const int64_t step = plan.neighbourhood.stride;
  const int64_t taps = shape.taps(), spacing = plan.spacing;
  const Slices slices(shape, width);
  const bool per_sample = (Mul && pass.mul.batch_stride != 0) || (Add && pass.add.batch_stride != 0);
  const bool own_attn = !pass.adjoint && lies_as_scratch<T>(pass.attn),
             own_out = lies_as_scratch<T>(pass.out) && shape.head_channels() % width == 0;
  Scratch<T> mul(Mul ? shape.heads * slices.head_size() : 0), add(Add ? shape.heads * slices.head_size() : 0);
  Scratch<T> window(plan.window_pixels * width), out(own_out ? 0 : tiling.pixels() * width);
  Scratch<T> attn(pass.adjoint ? plan.window_pixels * taps : own_attn ? 0 : tiling.pixels() * taps);

  const auto ahead_of = [&](int64_t unit) {
    if (unit >= last_unit) return GatherAhead();
    const int64_t head = unit % shape.heads;
    const Tile tile(tiling, unit / shape.heads);
    const int64_t y = tile.first_row * step / spacing, x = tile.first_column * step / spacing;
    return GatherAhead{
        {pass.source, tile.sample, slices.first_channel(head, 0), shape.head_channels(), y, x, tile.rows, tile.columns},
        {pass.attn, tile.sample, head * taps, taps, y, x, tile.rows, tile.columns}};
  };

  int64_t packed_sample = -1;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t head = unit % shape.heads;
    const Tile tile(tiling, unit / shape.heads);
    const int64_t sample = tile.sample;
    if (packed_sample < 0 || (per_sample && sample != packed_sample)) {
      if (Mul) slices.pack<T>(pass.mul, sample * pass.mul.batch_stride, mul);
      if (Add) slices.pack<T>(pass.add, sample * pass.add.batch_stride, add);
      packed_sample = sample;
    }

    const Window around{Axis::of_taps_inside(tile.first_row, tile.rows, plan.neighbourhood, plan.source_height),
                        Axis::of_taps_inside(tile.first_column, tile.columns, plan.neighbourhood, plan.source_width),
                        spacing};
    const int64_t pitch = around.x.length * width;
    int64_t first_tap = around.y.first_tap * K + around.x.first_tap;
    TapWalk walk{};
    walk.rows = around.y.taps, walk.columns = around.y.taps == 0 ? 0 : around.x.taps;
    walk.window_row = dilation * pitch, walk.window_column = dilation * width;
    Pixels<const T> maps{attn, tile.columns * taps, taps};
    if (pass.adjoint) {
      // The taps are walked backwards, each in the attention of the pixel that it leads to.
      first_tap = taps - 1 - first_tap;
      pack_window<T>(pass.attn, sample, head * taps, taps, taps, around, attn);
      maps.row = around.x.length * taps;
      walk.attn_row = dilation * maps.row - K, walk.attn_column = dilation * taps - 1;
      walk.matrix_row = -K * width, walk.matrix_column = -width;
    } else {
      if (own_attn) {
        maps = own_pixels<const T>(pass.attn, head * taps, tile);
      } else {
        pack_window<T>(pass.attn, sample, head * taps, taps, taps, tile.window(), attn);
      }
      walk.attn_row = K, walk.attn_column = 1;
      walk.matrix_row = K * width, walk.matrix_column = width;
    }

    const bool whole = walk.rows == K && walk.columns == K;
    GatherAhead ahead = ahead_of(unit + 1);
    for (int64_t slice = 0; slice < slices.count; ++slice) {
      const int64_t channel = slices.first_channel(head, slice), count = slices.channels(slice);
      const int64_t matrix = head * slices.head_size() + slice * slices.matrix_size() + first_tap * width;
      Pixels<T> to{out, tile.columns * width, width};
      if (own_out) to = own_pixels<T>(pass.out, channel, tile);
      pack_window<T>(pass.source, sample, channel, count, width, around, window);
      gather_tile<T, Vectors, Mul, Add>(walk, whole ? plan.compiled_taps : 0,
                                        {{window, maps.data + first_tap, mul + matrix, add + matrix, to.data},
                                         tile.rows,
                                         tile.columns,
                                         step * pitch,
                                         step * width,
                                         maps.row,
                                         maps.column,
                                         to.row,
                                         to.column},
                                        ahead);
      if (!own_out) unpack_tile<T>(pass.out, channel, count, width, tile, out);
    }
  }
}

}  // namespace
}  // namespace elsa::ghost_head::ELSA_CAPABILITY
