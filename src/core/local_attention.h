// What the ops that compare every query with the keys of its neighbourhood have in common. Includes neither torch nor
// CUDA.
//
//   logit[b,h,t,i] = scale · Σ_c query[b,h,c,i] · key[b,h,c,j(i,t)] + bias[h,t,i],   −∞ where tap t does not count
//
// for the tap t of output i, which is the source j; see core/neighbourhood.h.
#pragma once

#include "neighbourhood.h"
#include "views.h"

namespace elsa {

struct LocalShape {
  int64_t batch, heads, channels;  // channels of a head of query and key
  int64_t height, width;
  Neighbourhood y, x;
  double scale;

  ELSA_INLINE_ANYWHERE int64_t taps() const { return y.kernel_size * x.kernel_size; }
};

// A contiguous (heads, rows, columns), or one per sample: a number for every tap, or for every relative position that a
// tap can have, (2K − 1)² of them. Absent if data is null.
struct BiasView {
  const void* data;
  DType dtype;
  int64_t batch_stride;  // 0 where all samples share it
  bool relative;

  ELSA_INLINE_ANYWHERE int64_t rows(const LocalShape& shape) const { return extent(shape.y); }
  ELSA_INLINE_ANYWHERE int64_t columns(const LocalShape& shape) const { return extent(shape.x); }
  ELSA_INLINE_ANYWHERE int64_t head_size(const LocalShape& shape) const { return rows(shape) * columns(shape); }

  // The row of tap `tap` of an output whose taps start at `offset`; columns alike.
  ELSA_INLINE_ANYWHERE int64_t place(const Neighbourhood& axis, int64_t offset, int64_t tap) const {
    return relative ? offset + tap + axis.kernel_size - 1 : tap;
  }

 private:
  ELSA_INLINE_ANYWHERE int64_t extent(const Neighbourhood& axis) const {
    return relative ? 2 * axis.kernel_size - 1 : axis.kernel_size;
  }
};

}  // namespace elsa
