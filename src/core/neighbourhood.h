// What the pixels of one axis look at.
#pragma once

#include <optional>
#include <string_view>

#include "index.h"

namespace elsa {

// What the taps of an output near the end of an axis find.
//
//   zeros     beyond it, key and value are zero; the tap counts
//   mask      beyond it, a tap does not count
//   circular  the axis goes on at its other end
//   shift     the window is moved until it lies inside
enum class Border { zeros, mask, circular, shift };

inline std::optional<Border> border_named(std::string_view name) {
  if (name == "zeros") return Border::zeros;
  if (name == "mask") return Border::mask;
  if (name == "circular") return Border::circular;
  if (name == "shift") return Border::shift;
  return std::nullopt;
}

// The dilation that an axis of `length` has: far beyond the map every dilation is the same, and around a circle it is
// one of those within.
inline int64_t dilation_within(int64_t dilation, int64_t length, Border border) {
  return border == Border::circular ? (dilation - 1) % length + 1 : smaller(dilation, length);
}

// The taps of one output: tap t is the source `first + t · dilation`, and lies `offset + t` dilations from the output.
struct Taps {
  int64_t first, offset;
  int64_t begin, end;  // those that count
};

// Output i looks at K taps; tap t is the source at i·stride + (t − K/2)·dilation, which may lie outside the map. Where
// the border is `shift`, see `taps`.
struct Neighbourhood {
  int64_t kernel_size, dilation, stride;
  Border border = Border::zeros;
  int64_t window_stride = 1;  // outputs that share a window, where it is shifted
  bool causal = false;        // taps after the output do not count, where the window is shifted

  int64_t radius() const { return kernel_size / 2 * dilation; }
  int64_t reach() const { return (kernel_size - 1) * dilation; }  // from the first tap to the last

  // The source of the first tap of output i.
  int64_t first_source(int64_t output) const { return output * stride - radius(); }

  // The sources from the first to the last that `outputs` neighbouring outputs look at, at most, on an axis of
  // `length`. Taps that no output has inside the map do not count.
  int64_t longest_reach(int64_t outputs, int64_t length) const {
    const int64_t taps_reach = smaller(reach(), length + stride * outputs);
    return stride * (outputs - 1) + taps_reach + 1;
  }

  // The taps of output i on an axis of `length`, with stride 1. Outputs i, i + dilation, … are an axis of their own,
  // on which neighbours are one apart: there, `shift` moves the window of `window_stride` outputs inside.
  ELSA_INLINE_ANYWHERE Taps taps(int64_t i, int64_t length) const {
    const int64_t K = kernel_size, d = dilation;
    if (border != Border::shift) {
      Taps centred{i - K / 2 * d, -(K / 2), 0, K};
      if (border == Border::mask) {
        const int64_t before = divide_up(larger(0, -centred.first), d);
        const int64_t inside = divide_up(larger(0, length - centred.first), d);
        centred.begin = smaller(before, K), centred.end = smaller(inside, K);
      }
      return centred;
    }
    const int64_t residue = i % d, place = i / d, places = divide_up(length - residue, d), w = window_stride;
    const int64_t left = K / 2, right = K - 1 - left;
    int64_t start;
    if (causal) {
      start = larger(smaller(place / w * w + w - 1, places - 1) - K + 1, 0);
    } else {
      const int64_t leader = smaller(place / w * w + w / 2, places - 1);
      start = smaller(larger(leader, left), places - 1 - right) - left;
    }
    return {start * d + residue, start - place, 0, causal ? smaller(K, place - start + 1) : K};
  }
};

}  // namespace elsa
