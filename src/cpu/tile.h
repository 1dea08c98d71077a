// The tiles that maps are cut into, and how kernels read and write their pixels.
#pragma once

#include "pack.h"
#include "tiling.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The pixels of one tile; tiles are counted row by row, sample by sample.
struct Tile {
  int64_t sample, first_row, rows, first_column, columns;

  Tile(const Tiling& tiling, int64_t index)
      : sample(index / tiling.count()),
        first_row(index / tiling.across % tiling.down * tiling.rows),
        first_column(index % tiling.across * tiling.columns) {
    rows = smaller(tiling.rows, tiling.height - first_row);
    columns = smaller(tiling.columns, tiling.width - first_column);
  }
  Window window() const { return {{first_row, rows}, {first_column, columns}}; }
};

// A map's numbers as the inner loops find them: its own, or a copy in scratch.
template <typename T>
struct Pixels {
  T* data;
  int64_t row, column;  // steps from one row and one pixel to the next
};

// The channels from `channel` on of a tile of a map that lies as scratch does.
template <typename T>
Pixels<T> own_pixels(const MapView& map, int64_t channel, const Tile& tile) {
  return {map.at<T>(tile.sample, channel, tile.first_row, tile.first_column), map.row_stride, map.column_stride};
}

// Copy `count` channels of a tile from scratch pixels, `width` apart.
template <typename T>
void unpack_tile(const MapView& map, int64_t first_channel, int64_t count, int64_t width, const Tile& tile,
                 const T* from) {
  for (int64_t y = 0; y < tile.rows; ++y, from += tile.columns * width) {
    unpack_row<T>(map, tile.sample, first_channel, count, width, tile.first_row + y, tile.first_column, tile.columns,
                  from);
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
    const int64_t size = size_of(map.dtype);
    const int64_t first = sample * map.batch_stride + channel + y * map.row_stride + x * map.column_stride;
    row_ = static_cast<const char*>(map.data) + first * size;
    row_step_ = map.row_stride * size, column_step_ = map.column_stride * size, bytes_ = channels * size;
    rows_ = rows, columns_ = columns;
  }

  bool done() const { return rows_ <= 0; }

  void fetch(int64_t pixels) {
    for (; pixels > 0 && rows_ > 0; --pixels) {
      const char *from = row_ + x_ * column_step_, *end = from + bytes_;
      from -= reinterpret_cast<uintptr_t>(from) % line;
      for (; from < end; from += line) __builtin_prefetch(from, 0, 2);
      if (++x_ == columns_) x_ = 0, row_ += row_step_, --rows_;
    }
  }

 private:
  static constexpr uintptr_t line = 64;
  const char* row_ = nullptr;
  int64_t row_step_ = 0, column_step_ = 0, bytes_ = 0, rows_ = 0, columns_ = 0, x_ = 0;
};

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
