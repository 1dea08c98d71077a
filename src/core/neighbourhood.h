// What the pixels of one axis look at.
#pragma once

#include "index.h"

namespace elsa {

// Output i looks at K taps; tap t is the source at i·stride + (t − K/2)·dilation, which may lie outside the map.
struct Neighbourhood {
  int64_t kernel_size, dilation, stride;

  int64_t radius() const { return kernel_size / 2 * dilation; }
  int64_t reach() const { return (kernel_size - 1) * dilation; }  // from the first tap to the last

  // The source of the first tap of output i.
  int64_t first_source(int64_t output) const { return output * stride - radius(); }

  // The sources from the first to the last that `outputs` neighbouring outputs look at, at most, on an axis of
  // `length`. Taps that no output has inside the map do not count.
  int64_t longest_reach(int64_t outputs, int64_t length) const {
    const int64_t taps_apart = smaller(reach(), length + stride * outputs);
    return stride * (outputs - 1) + taps_apart + 1;
  }
};

}  // namespace elsa
