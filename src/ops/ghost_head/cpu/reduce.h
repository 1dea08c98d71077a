// The reductions of ghost_head: gradients that are sums over channels (attn) or over pixels (the ghost matrices).
#pragma once

#include "plan.h"
#include "slices.h"

namespace elsa::ghost_head::ELSA_CAPABILITY {
namespace {

// What a reduction adds up: for attn the sums over channels (of mul · grad · value, or of grad · value where there is
// no mul), for the matrices the sums over pixels.
template <bool Attn, bool Scaled, bool Mul, bool Add>
struct Wanted {
  static constexpr bool attn = Attn, scaled = Scaled, mul = Mul, add = Add;
  // Neighbouring taps that are worked on at once: as many as the sums over pixels leave registers for.
  static constexpr int most_taps = vector_registers == 32 ? (Mul && Add ? 5 : 7) : (Mul && Add ? 2 : 3);
};

// What the inner loop reads and adds to for a row of pixels.
template <typename T>
struct ReduceRow {
  int64_t pixels;
  const T *window, *grad, *attn, *mul;
  T *sum_attn, *sum_mul, *sum_add;
  int64_t window_column, window_pixel, grad_pixel, attn_pixel, sum_pixel;
};

constexpr int next_power_of_two(int count) { return count <= 1 ? 1 : 2 * next_power_of_two((count + 1) / 2); }

// Taps neighbours of every pixel in the row.
template <typename T, int Vectors, int Taps, typename Want>
ELSA_INLINE void reduce_taps(const ReduceRow<T>& row) {
  constexpr int L = lanes<T>, Lanes = next_power_of_two(Taps);
  Vector<T> sum_mul[Taps][Vectors] = {}, sum_add[Taps][Vectors] = {};
  for (int64_t x = 0; x < row.pixels; ++x) {
    const T* w = row.window + x * row.window_pixel;
    const T* a = row.attn + x * row.attn_pixel;
    Vector<T> grad[Vectors], sum_attn[Lanes] = {};
    for (int v = 0; v < Vectors; ++v) grad[v] = load_unaligned(row.grad + x * row.grad_pixel + v * L);
#pragma GCC unroll 8
    for (int j = 0; j < Taps; ++j) {
#pragma GCC unroll 2
      for (int v = 0; v < Vectors; ++v) {
        Vector<T> product = grad[v] * load(w + j * row.window_column + v * L);
        // Additions have units of their own; the last vector's leave less to them, and more to those that multiply.
        if (Want::mul || v + 1 < Vectors) settle(product);
        if constexpr (Want::attn) {
          const Vector<T> term = Want::scaled ? product * load(row.mul + (j * Vectors + v) * L) : product;
          sum_attn[j] = v == 0 ? term : sum_attn[j] + term;
        }
        if constexpr (Want::mul) sum_mul[j][v] += product * a[j];
        if constexpr (Want::add) sum_add[j][v] += product;
      }
    }
    if constexpr (Want::attn) add_lanes<T, Lanes>(sum_attn, row.sum_attn + x * row.sum_pixel);
  }
  for (int j = 0; j < Taps; ++j) {
    for (int v = 0; v < Vectors; ++v) {
      const int at = (j * Vectors + v) * L;
      if constexpr (Want::mul) store(row.sum_mul + at, load(row.sum_mul + at) + sum_mul[j][v]);
      if constexpr (Want::add) store(row.sum_add + at, load(row.sum_add + at) + sum_add[j][v]);
    }
  }
}

template <typename T, int Vectors, int Taps, typename Want>
ELSA_INLINE void reduce_run(const ReduceRow<T>& row, int64_t taps) {
  if constexpr (Taps > 0) {
    if (taps != Taps) return reduce_run<T, Vectors, Taps - 1, Want>(row, taps);
    reduce_taps<T, Vectors, Taps, Want>(row);
  }
}

// What the next unit of work reads.
struct ReduceAhead {
  Prefetch value, grad, attn;

  void fetch(int64_t pixels) {
    value.fetch(pixels);
    grad.fetch(pixels);
    attn.fetch(pixels);
  }
};

// All taps in range, in runs whose lengths differ by at most one.
template <typename T, int Vectors, typename Want>
void reduce_row(const Window& around, int64_t kernel_size, int64_t window_row, const ReduceRow<T>& first,
                ReduceAhead& ahead) {
  const int64_t runs = (around.x.taps + Want::most_taps - 1) / Want::most_taps;
  for (int64_t i = 0; i < around.y.taps; ++i) {
    for (int64_t run = 0; run < runs; ++run) {
      const int64_t tap = run * around.x.taps / runs, taps = (run + 1) * around.x.taps / runs - tap;
      const int64_t at = i * kernel_size + tap, matrix = at * Vectors * lanes<T>;
      ReduceRow<T> row = first;
      row.window += i * window_row + tap * row.window_column;
      row.attn += at, row.sum_attn += at, row.mul += matrix, row.sum_mul += matrix, row.sum_add += matrix;
      reduce_run<T, Vectors, Want::most_taps, Want>(row, taps);
    }
    ahead.fetch((i + 1) * first.pixels / around.y.taps - i * first.pixels / around.y.taps);
  }
}

template <typename T, int Vectors, typename Want>
void reduce(const Reduce& pass, const Plan& plan, int64_t first_unit, int64_t last_unit) {
  constexpr int64_t width = Vectors * lanes<T>;
  const Shape& shape = pass.shape;
  const cpu::Tiling& tiling = plan.tiling;
  const int64_t K = plan.neighbourhood.kernel_size, dilation = plan.neighbourhood.dilation;
  const int64_t stride = plan.neighbourhood.stride;
  const int64_t taps = shape.taps(), sum_pixel = taps + Want::most_taps;  // a run's last lanes are beyond its taps
  const Slices slices(shape, width);
  const bool own_grad = lies_as_scratch<T>(pass.grad), own_attn = lies_as_scratch<T>(pass.attn);
  Scratch<T> window(plan.window_pixels * width);
  Scratch<T> grad(tiling.pixels() * width);
  Scratch<T> attn(Want::mul && !own_attn ? tiling.pixels() * taps : 0);
  Scratch<T> sum_attn(Want::attn ? tiling.pixels() * sum_pixel : 0);
  Scratch<T> mul(Want::scaled ? shape.heads * slices.head_size() : 0);
  Scratch<T> sum_mul(Want::mul ? slices.head_size() : 0);
  Scratch<T> sum_add(Want::add ? slices.head_size() : 0);

  // The tiles of a sum are those of its samples; a chunk has a fixed part of them.
  const int64_t tiles_of_a_sum = pass.samples_of_a_sum() * tiling.count();
  const auto first_tile = [&](int64_t sum, int64_t chunk) {
    return sum * tiles_of_a_sum + chunk * tiles_of_a_sum / pass.chunks;
  };

  const auto ahead_of = [&](int64_t unit) {
    if (unit >= last_unit) return ReduceAhead();
    const int64_t head = unit % shape.heads, partial = unit / shape.heads;
    const int64_t channel = slices.first_channel(head, 0), count = shape.head_channels(), s = stride;
    const Tile t(tiling, first_tile(partial / pass.chunks, partial % pass.chunks));
    return ReduceAhead{
        {pass.value, t.sample, channel, count, t.first_row * s, t.first_column * s, t.rows, t.columns},
        {pass.grad, t.sample, channel, count, t.first_row, t.first_column, t.rows, t.columns},
        Want::mul ? Prefetch(pass.attn, t.sample, head * taps, taps, t.first_row, t.first_column, t.rows, t.columns)
                  : Prefetch()};
  };

  int64_t packed_sum = -1;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t head = unit % shape.heads, partial = unit / shape.heads;
    const int64_t sum = partial / pass.chunks, chunk = partial % pass.chunks;
    if (Want::scaled && (packed_sum < 0 || (pass.mul.batch_stride != 0 && sum != packed_sum))) {
      slices.pack<T>(pass.mul, sum * pass.mul.batch_stride, mul);
      packed_sum = sum;
    }
    if (Want::mul) zero<T>(sum_mul, slices.head_size());
    if (Want::add) zero<T>(sum_add, slices.head_size());

    for (int64_t index = first_tile(sum, chunk); index < first_tile(sum, chunk + 1); ++index) {
      const Tile tile(tiling, index);
      const int64_t sample = tile.sample;
      const Window around{Axis::of_taps_inside(tile.first_row, tile.rows, plan.neighbourhood, plan.source_height),
                          Axis::of_taps_inside(tile.first_column, tile.columns, plan.neighbourhood, plan.source_width)};
      const int64_t first_tap = around.y.first_tap * K + around.x.first_tap;
      const int64_t pitch = around.x.length * width;
      Pixels<const T> maps{attn, tile.columns * taps, taps};
      if (Want::mul && own_attn) {
        maps = own_pixels<const T>(pass.attn, head * taps, tile);
      } else if (Want::mul) {
        pack_window<T>(pass.attn, sample, head * taps, taps, taps, tile.window(), attn);
      }
      ReduceAhead ahead = ahead_of(unit + 1);
      if (Want::attn) zero<T>(sum_attn, tile.rows * tile.columns * sum_pixel);

      for (int64_t slice = 0; slice < slices.count; ++slice) {
        const int64_t channel = slices.first_channel(head, slice), channels = slices.channels(slice);
        const int64_t matrix = slice * slices.matrix_size() + first_tap * width;
        pack_window<T>(pass.value, sample, channel, channels, width, around, window);
        Pixels<const T> grads{grad, tile.columns * width, width};
        if (own_grad && channels == width) {
          grads = own_pixels<const T>(pass.grad, channel, tile);
        } else {
          pack_window<T>(pass.grad, sample, channel, channels, width, tile.window(), grad);
        }
        for (int64_t y = 0; y < tile.rows; ++y) {
          const ReduceRow<T> row{tile.columns,
                                 window + y * stride * pitch,
                                 grads.data + y * grads.row,
                                 maps.data + y * maps.row + first_tap,
                                 mul + head * slices.head_size() + matrix,
                                 sum_attn + y * tile.columns * sum_pixel + first_tap,
                                 sum_mul + matrix,
                                 sum_add + matrix,
                                 dilation * width,
                                 stride * width,
                                 grads.column,
                                 maps.column,
                                 sum_pixel};
          reduce_row<T, Vectors, Want>(around, K, dilation * pitch, row, ahead);
        }
      }
      if (Want::attn) unpack_tile<T>(pass.grad_attn, head * taps, taps, sum_pixel, tile, sum_attn);
    }
    const int64_t to = partial * shape.channels * taps;
    if (Want::mul) slices.unpack<T>(sum_mul, head, static_cast<T*>(pass.partial_mul) + to);
    if (Want::add) slices.unpack<T>(sum_add, head, static_cast<T*>(pass.partial_add) + to);
  }
}

}  // namespace
}  // namespace elsa::ghost_head::ELSA_CAPABILITY
