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
};

// The most source pixels that a tile can need along one axis.
int64_t longest_axis(int64_t pixels, int64_t step, int64_t extent, const GhostHeadShape& shape) {
  const int64_t reach = (shape.kernel_size - 1) * shape.dilation;
  const int64_t most = extent + step * pixels;
  return step * (pixels - 1) + (reach < most ? reach : most) + 1;
}

// The channels of a head in blocks of `width`, which is what the inner loops work on. A last block is padded with
// zeros.
struct Blocks {
  int64_t head_channels, taps, width, count;

  Blocks(const GhostHeadShape& shape, int64_t block_width)
      : head_channels(shape.head_channels()),
        taps(shape.taps()),
        width(block_width),
        count((head_channels + block_width - 1) / block_width) {}

  int64_t size() const { return count * taps * width; }
  int64_t first_channel(int64_t head, int64_t block) const { return head * head_channels + block * width; }
  int64_t channels(int64_t block) const {
    const int64_t left = head_channels - block * width;
    return left < width ? left : width;
  }

  // Copy a head's matrices, from the element `offset` on, into [count][taps][width].
  template <typename T>
  void pack(const MatrixView& matrix, int64_t offset, int64_t head, T* to) const {
    for (int64_t block = 0; block < count; ++block) {
      pack_matrix<T>(matrix, offset + first_channel(head, block) * taps, channels(block), taps, width,
                     to + block * taps * width);
    }
  }

  // The reverse of pack, into (C, K, K).
  template <typename T>
  void unpack(const T* from, int64_t head, T* to) const {
    for (int64_t block = 0; block < count; ++block, from += taps * width) {
      for (int64_t k = 0; k < channels(block); ++k) {
        for (int64_t tap = 0; tap < taps; ++tap) {
          to[(first_channel(head, block) + k) * taps + tap] = from[tap * width + k];
        }
      }
    }
  }
};

// How the inner loop moves through scratch: the taps in range, and the steps from one to the next and between pixels.
template <typename T>
struct TapWalk {
  int64_t rows, columns;
  const T *window, *attn, *mul, *add;
  int64_t window_row, window_column, window_pixel;
  int64_t attn_row, attn_column, attn_pixel;
  int64_t matrix_row, matrix_column;
};

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
