// The channels of ghost_head's heads in blocks, and the ghost matrices in their order.
#pragma once

#include "../../../cpu/tile.h"
#include "../contract.h"

namespace elsa::ghost_head::ELSA_CAPABILITY {
namespace {

using namespace cpu::ELSA_CAPABILITY;

// The channels of every head in blocks of `width`, which is what the inner loops work on. A head's last block is padded
// with zeros.
struct Blocks {
  int64_t heads, head_channels, taps, width, count;  // count: of a head

  Blocks(const Shape& shape, int64_t block_width)
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

}  // namespace
}  // namespace elsa::ghost_head::ELSA_CAPABILITY
