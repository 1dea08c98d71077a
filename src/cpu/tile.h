// What the passes of ghost_head share: how maps are cut into tiles, channels into blocks, and how the taps are walked.
#pragma once

#include "pack.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The pixels of one tile.
struct Tile {
  int64_t first_row, rows, first_column, columns;

  Tile(const Tiling& tiling, int64_t index, int64_t height, int64_t width)
      : first_row(index / tiling.across * tiling.rows), first_column(index % tiling.across * tiling.columns) {
    rows = first_row + tiling.rows < height ? tiling.rows : height - first_row;
    columns = first_column + tiling.columns < width ? tiling.columns : width - first_column;
  }
  Window window() const { return {{first_row, rows}, {first_column, columns}}; }
};

// The channels of every head in blocks of `width`, which is what the inner loops work on. A head's last block is padded
// with zeros.
struct Blocks {
  int64_t heads, head_channels, taps, width, count;  // count: of a head

  Blocks(const GhostHeadShape& shape, int64_t block_width)
      : heads(shape.heads),
        head_channels(shape.head_channels()),
        taps(shape.taps()),
        width(block_width),
        count((head_channels + block_width - 1) / block_width) {}

  int64_t matrix_size() const { return taps * width; }
  int64_t head_size() const { return count * matrix_size(); }
  int64_t first_channel(int64_t head, int64_t block) const { return head * head_channels + block * width; }
  int64_t channels(int64_t block) const {
    const int64_t left = head_channels - block * width;
    return left < width ? left : width;
  }

  // Copy the matrices of all heads, from the element `offset` on, into [heads][count][taps][width].
  template <typename T>
  void pack(const MatrixView& matrix, int64_t offset, T* to) const {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t block = 0; block < count; ++block, to += matrix_size()) {
        pack_matrix<T>(matrix, offset + first_channel(head, block) * taps, channels(block), taps, width, to);
      }
    }
  }

  // Copy a head's sums, [count][taps][width], into (C, K, K).
  template <typename T>
  void unpack(const T* from, int64_t head, T* to) const {
    for (int64_t block = 0; block < count; ++block, from += matrix_size()) {
      unpack_row<T, T>(from, width, {to + first_channel(head, block) * taps, taps, 1, taps, channels(block)});
    }
  }
};

// A map's numbers as the inner loops find them: its own, or a copy in scratch.
template <typename T>
struct Pixels {
  T* data;
  int64_t row, column;  // steps from one row and one pixel to the next
};

// The channels from `channel` on of a tile of a map that lies as scratch does.
template <typename T>
Pixels<T> own_pixels(const MapView& map, int64_t sample, int64_t channel, const Tile& tile) {
  return {static_cast<T*>(map.data) + sample * map.batch_stride + channel + tile.first_row * map.row_stride +
              tile.first_column * map.column_stride,
          map.row_stride, map.column_stride};
}

// Copy `count` channels of a tile from scratch pixels, `width` apart.
template <typename T>
void unpack_tile(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width,
                 const Tile& tile, const T* from) {
  for (int64_t y = 0; y < tile.rows; ++y, from += tile.columns * width) {
    unpack_row<T>(map, sample, first_channel, count, width, tile.first_row + y, tile.first_column, tile.columns, from);
  }
}

// The pixels of a rectangle, brought into the second-level cache a few at a time while the tile before it is worked on:
// a head's channels of neighbouring pixels lie too far apart for the hardware to guess what comes next.
class Prefetch {
 public:
  Prefetch() = default;
  Prefetch(const MapView& map, int64_t sample, int64_t channel, int64_t channels, int64_t y, int64_t x, int64_t rows,
           int64_t columns) {
    if (map.channel_stride != 1) return;
    const int64_t size = map.dtype == DType::float64 ? 8 : map.dtype == DType::float32 ? 4 : 2;
    const int64_t first = sample * map.batch_stride + channel + y * map.row_stride + x * map.column_stride;
    row_ = static_cast<const char*>(map.data) + first * size;
    row_step_ = map.row_stride * size, column_step_ = map.column_stride * size, bytes_ = channels * size;
    rows_ = rows, columns_ = columns;
  }

  void fetch(int64_t pixels) {
    for (; pixels > 0 && rows_ > 0; --pixels) {
      const char* from = row_ + x_ * column_step_;
      for (int64_t k = 0; k < bytes_; k += line) __builtin_prefetch(from + k, 0, 2);
      __builtin_prefetch(from + bytes_ - 1, 0, 2);
      if (++x_ == columns_) x_ = 0, row_ += row_step_, --rows_;
    }
  }

 private:
  static constexpr int64_t line = 64;
  const char* row_ = nullptr;
  int64_t row_step_ = 0, column_step_ = 0, bytes_ = 0, rows_ = 0, columns_ = 0, x_ = 0;
};

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
