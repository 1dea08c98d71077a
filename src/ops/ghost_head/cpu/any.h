// ghost_head at every border, with any stride and matrices, a row of pixels at a time: what the other kernels leave.
//
// Neighbours say what a pixel of a row looks at, so that the forward and its adjoint are the same loop. A row is first
// copied into small channels-last scratch in the accumulation type.
#pragma once

#include "plan.h"
#include "slices.h"

namespace elsa::ghost_head::ELSA_CAPABILITY {
namespace {

// Copy `count` channels of a row of a map into [column][width].
template <typename T>
void pack_map_row(const MapView& map, int64_t sample, int64_t channel, int64_t count, int64_t width, int64_t row,
                  T* to) {
  with_type<T>(map.dtype, [&](auto type) {
    using From = decltype(type);
    const From* from = map.at<const From>(sample, channel, row, 0);
    pack_row<T, From>({from, map.channel_stride, map.column_stride, map.width, count}, width, width, to);
  });
}

// The weights of neighbours in a slice of channels: attn of one pixel, times mul, plus add.
template <typename T, bool Mul, bool Add, int Vectors>
ELSA_INLINE Vector<T> weight_of(T attn, const T* mul, const T* add, int v) {
  constexpr int L = lanes<T>;
  Vector<T> weight = broadcast(attn);
  if constexpr (Mul) weight *= load(mul + v * L);
  if constexpr (Add) weight += load(add + v * L);
  return weight;
}

// Add to a row of results, [column][width], its neighbours in a row of sources. The taps' row of attn is [column][tap],
// its columns those of the results, or in the adjoint those of the sources.
template <typename T, int Vectors, bool Mul, bool Add, bool Adjoint>
void gather_row(const Neighbours& columns, int64_t taps, const T* source, const T* attn, const T* mul, const T* add,
                T* out) {
  constexpr int L = lanes<T>, width = Vectors * L;
  for (int64_t x = 0; x < columns.count(); ++x, out += width) {
    Vector<T> sum[Vectors] = {};
    for (const Neighbour* at = columns.begin(x); at != columns.end(x); ++at) {
      const T map = attn[(Adjoint ? at->position : x) * taps + at->tap];
      for (int v = 0; v < Vectors; ++v) {
        sum[v] += weight_of<T, Mul, Add, Vectors>(map, mul + at->tap * width, add + at->tap * width, v) *
                  load(source + at->position * width + v * L);
      }
    }
    for (int v = 0; v < Vectors; ++v) store(out + v * L, load(out + v * L) + sum[v]);
  }
}

template <typename T, int Vectors, bool Mul, bool Add, bool Adjoint>
void gather_any(const Gather& pass, const Neighbours& rows, const Neighbours& columns, int64_t first_unit,
                int64_t last_unit) {
  constexpr int64_t width = Vectors * lanes<T>;
  const Shape& shape = pass.shape;
  const int64_t taps = shape.taps(), row_taps = shape.x.kernel_size;
  const Slices slices(shape, width);
  Scratch<T> mul(Mul ? shape.heads * slices.head_size() : 0), add(Add ? shape.heads * slices.head_size() : 0);
  Scratch<T> source(pass.source.width * width), attn(pass.attn.width * row_taps), out(pass.out.width * width);
  int64_t packed_sample = -1;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t head = unit % shape.heads, y = unit / shape.heads % rows.count();
    const int64_t sample = unit / shape.heads / rows.count();
    if (sample != packed_sample) {
      if (Mul) slices.pack<T>(pass.mul, sample * pass.mul.batch_stride, mul);
      if (Add) slices.pack<T>(pass.add, sample * pass.add.batch_stride, add);
      packed_sample = sample;
    }
    for (int64_t slice = 0; slice < slices.count; ++slice) {
      const int64_t channel = slices.first_channel(head, slice), count = slices.channels(slice);
      zero<T>(out, pass.out.width * width);
      for (const Neighbour* at = rows.begin(y); at != rows.end(y); ++at) {
        const int64_t tap = at->tap * row_taps;
        const int64_t matrix = head * slices.head_size() + slice * slices.matrix_size() + tap * width;
        pack_map_row<T>(pass.source, sample, channel, count, width, at->position, source);
        pack_map_row<T>(pass.attn, sample, head * taps + tap, row_taps, row_taps, Adjoint ? at->position : y, attn);
        gather_row<T, Vectors, Mul, Add, Adjoint>(columns, row_taps, source, attn, mul + matrix, add + matrix, out);
      }
      unpack_row<T>(pass.out, sample, channel, count, width, y, 0, pass.out.width, out);
    }
  }
}

// The sums over channels of a row of pixels, [column][taps of all rows]: those with one row of sources.
template <typename T, int Vectors, bool Mul>
void sum_channels(const Neighbours& columns, int64_t taps, const T* source, const T* grad, const T* mul, T* sums) {
  constexpr int L = lanes<T>, width = Vectors * L;
  for (int64_t x = 0; x < columns.count(); ++x, grad += width, sums += taps) {
    for (const Neighbour* at = columns.begin(x); at != columns.end(x); ++at) {
      Vector<T> sum{};
      for (int v = 0; v < Vectors; ++v) {
        Vector<T> product = load(grad + v * L) * load(source + at->position * width + v * L);
        if constexpr (Mul) product *= load(mul + at->tap * width + v * L);
        sum += product;
      }
      add_lanes<T, 1>(&sum, sums + at->tap);
    }
  }
}

template <typename T, int Vectors, bool Mul>
void reduce_channels_any(const Reduce& pass, const Neighbours& rows, const Neighbours& columns, int64_t first_unit,
                         int64_t last_unit) {
  constexpr int64_t width = Vectors * lanes<T>;
  const Shape& shape = pass.shape;
  const int64_t taps = shape.taps(), row_taps = shape.x.kernel_size;
  const Slices slices(shape, width);
  Scratch<T> mul(Mul ? shape.heads * slices.head_size() : 0);
  Scratch<T> source(pass.value.width * width), grad(pass.grad.width * width), sums(pass.grad.width * taps);
  int64_t packed_sample = -1;
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t head = unit % shape.heads, y = unit / shape.heads % rows.count();
    const int64_t sample = unit / shape.heads / rows.count();
    if (Mul && sample != packed_sample) {
      slices.pack<T>(pass.mul, sample * pass.mul.batch_stride, mul);
      packed_sample = sample;
    }
    zero<T>(sums, pass.grad.width * taps);
    for (int64_t slice = 0; slice < slices.count; ++slice) {
      const int64_t channel = slices.first_channel(head, slice), count = slices.channels(slice);
      pack_map_row<T>(pass.grad, sample, channel, count, width, y, grad);
      for (const Neighbour* at = rows.begin(y); at != rows.end(y); ++at) {
        const int64_t tap = at->tap * row_taps;
        const int64_t matrix = head * slices.head_size() + slice * slices.matrix_size() + tap * width;
        pack_map_row<T>(pass.value, sample, channel, count, width, at->position, source);
        sum_channels<T, Vectors, Mul>(columns, taps, source, grad, mul + matrix, sums + tap);
      }
    }
    unpack_row<T>(pass.grad_attn, sample, head * taps, taps, taps, y, 0, pass.grad.width, sums);
  }
}

// The sums over a row of pixels, [tap][width]: of grad · value, and of that times attn, [column][tap].
template <typename T, int Vectors, bool Mul, bool Add>
void sum_pixels_of_row(const Neighbours& columns, int64_t taps, const T* source, const T* grad, const T* attn,
                       T* sum_mul, T* sum_add) {
  constexpr int L = lanes<T>, width = Vectors * L;
  for (int64_t x = 0; x < columns.count(); ++x, grad += width, attn += taps) {
    for (const Neighbour* at = columns.begin(x); at != columns.end(x); ++at) {
      for (int v = 0; v < Vectors; ++v) {
        const Vector<T> product = load(grad + v * L) * load(source + at->position * width + v * L);
        const int64_t to = at->tap * width + v * L;
        if constexpr (Mul) store(sum_mul + to, load(sum_mul + to) + product * attn[at->tap]);
        if constexpr (Add) store(sum_add + to, load(sum_add + to) + product);
      }
    }
  }
}

// Add `count` numbers to others, and leave zeros.
template <typename T>
void move_sums(T* from, int64_t count, T* to) {
  for (int64_t k = 0; k < count; k += lanes<T>) {
    store(to + k, load(to + k) + load(from + k));
    store(from + k, Vector<T>{});
  }
}

// A unit is a head of a chunk of the rows of a sum.
template <typename T, int Vectors, bool Mul, bool Add>
void reduce_pixels_any(const Reduce& pass, const Neighbours& rows, const Neighbours& columns, int64_t first_unit,
                       int64_t last_unit) {
  constexpr int64_t width = Vectors * lanes<T>;
  const Shape& shape = pass.shape;
  const int64_t taps = shape.taps(), row_taps = shape.x.kernel_size;
  const int64_t rows_of_a_sum = pass.samples_of_a_sum() * rows.count();
  const Slices slices(shape, width);
  Scratch<T> source(pass.value.width * width), grad(pass.grad.width * width), attn(pass.attn.width * row_taps);
  // The sums of a row apart: those of very many pixels would lose the last ones.
  Scratch<T> row_mul(row_taps * width), row_add(row_taps * width);
  Scratch<T> sum_mul(Mul ? slices.head_size() : 0), sum_add(Add ? slices.head_size() : 0);
  zero<T>(row_mul, row_taps * width);
  zero<T>(row_add, row_taps * width);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t head = unit % shape.heads, partial = unit / shape.heads;
    const int64_t sum = partial / pass.chunks, chunk = partial % pass.chunks;
    if (Mul) zero<T>(sum_mul, slices.head_size());
    if (Add) zero<T>(sum_add, slices.head_size());
    const int64_t last_row = (chunk + 1) * rows_of_a_sum / pass.chunks;
    for (int64_t row = chunk * rows_of_a_sum / pass.chunks; row < last_row; ++row) {
      const int64_t sample = sum * pass.samples_of_a_sum() + row / rows.count(), y = row % rows.count();
      for (int64_t slice = 0; slice < slices.count; ++slice) {
        const int64_t channel = slices.first_channel(head, slice), count = slices.channels(slice);
        pack_map_row<T>(pass.grad, sample, channel, count, width, y, grad);
        for (const Neighbour* at = rows.begin(y); at != rows.end(y); ++at) {
          const int64_t tap = at->tap * row_taps, to = slice * slices.matrix_size() + tap * width;
          pack_map_row<T>(pass.value, sample, channel, count, width, at->position, source);
          if (Mul) pack_map_row<T>(pass.attn, sample, head * taps + tap, row_taps, row_taps, y, attn);
          sum_pixels_of_row<T, Vectors, Mul, Add>(columns, row_taps, source, grad, attn, row_mul, row_add);
          if (Mul) move_sums<T>(row_mul, row_taps * width, sum_mul + to);
          if (Add) move_sums<T>(row_add, row_taps * width, sum_add + to);
        }
      }
    }
    const int64_t to = partial * shape.channels * taps;
    if (Mul) slices.unpack<T>(sum_mul, head, static_cast<T*>(pass.partial_mul) + to);
    if (Add) slices.unpack<T>(sum_add, head, static_cast<T*>(pass.partial_add) + to);
  }
}

}  // namespace
}  // namespace elsa::ghost_head::ELSA_CAPABILITY
