// The channels of ghost_head's heads in slices, and the ghost matrices in their order.
#pragma once

#include "../../../cpu/tile.h"
#include "../contract.h"

namespace elsa::ghost_head::ELSA_CAPABILITY {
namespace {

using namespace cpu::ELSA_CAPABILITY;

// The channels of every head in slices of `width`, which is what the inner loops work on. A head's last slice is padded
// with zeros.
struct Slices {
  int64_t heads, head_channels, taps, width, count;  // count: of a head

  Slices(const Shape& shape, int64_t slice_width)
      : heads(shape.heads),
        head_channels(shape.head_channels()),
        taps(shape.taps()),
        width(slice_width),
        count((head_channels + slice_width - 1) / slice_width) {}

  int64_t matrix_size() const { return taps * width; }
  int64_t head_size() const { return count * matrix_size(); }
  int64_t first_channel(int64_t head, int64_t slice) const { return head * head_channels + slice * width; }
  int64_t channels(int64_t slice) const {
    const int64_t left = head_channels - slice * width;
    return left < width ? left : width;
  }

  // Copy the matrices of all heads, from the element `offset` on, into [heads][count][taps][width].
  template <typename T>
  void pack(const MatrixView& matrix, int64_t offset, T* to) const {
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t slice = 0; slice < count; ++slice, to += matrix_size()) {
        pack_matrix<T>(matrix, offset + first_channel(head, slice) * taps, channels(slice), taps, width, to);
      }
    }
  }

  // Copy a head's sums, [count][taps][width], into (C, K, K).
  template <typename T>
  void unpack(const T* from, int64_t head, T* to) const {
    for (int64_t slice = 0; slice < count; ++slice, from += matrix_size()) {
      unpack_row<T, T>(from, width, {to + first_channel(head, slice) * taps, taps, 1, taps, channels(slice)});
    }
  }
};

}  // namespace
}  // namespace elsa::ghost_head::ELSA_CAPABILITY
