// What elsa::ghost_head computes, for kernels of every device: its shape, and the two passes that it is made of.
//
//   out[b,c,y,x] = Σ_ij (mul[c,i,j] · attn[b,head(c),i,j,y,x] + add[c,i,j]) · value[b,c, row(s·y,i), column(s·x,j)]
//
// over the taps that count, zero outside the map; see core/neighbourhood.h. A call is square if what is around its map
// is zero, and K, odd, d and s are the same along both axes: then row(y,i) = y+(i−K/2)·d, and column alike. Includes
// neither torch nor CUDA.
#pragma once

#include "../../core/local_attention.h"

namespace elsa::ghost_head {

struct Shape {
  int64_t batch, channels, height, width;  // of value
  int64_t heads;
  Neighbourhood y, x;
  bool square;

  ELSA_INLINE_ANYWHERE int64_t taps() const { return y.kernel_size * x.kernel_size; }
  ELSA_INLINE_ANYWHERE int64_t head_channels() const { return channels / heads; }
  ELSA_INLINE_ANYWHERE int64_t out_height() const { return height / y.stride; }
  ELSA_INLINE_ANYWHERE int64_t out_width() const { return width / x.stride; }
};

// A shape whose sizes and neighbourhoods are given, with what follows from them.
inline Shape completed(Shape shape) {
  Neighbourhood &y = shape.y, &x = shape.x;
  for (Neighbourhood* axis : {&y, &x}) {
    // A tap beyond the map finds zero: whether it counts makes no difference.
    if (axis->border == Border::mask) axis->border = Border::zeros;
  }
  // Beyond the end of an axis every dilation is the same.
  const int64_t dilation = larger(y.dilation, x.dilation);
  const auto allows = [&](const Neighbourhood& axis, int64_t length) {
    return axis.dilation == dilation || axis.dilation >= length;
  };
  shape.square = y.border == Border::zeros && y.kernel_size == x.kernel_size && y.kernel_size % 2 == 1 &&
                 y.stride == x.stride && allows(y, shape.height) && allows(x, shape.width);
  if (shape.square) y.dilation = x.dilation = dilation;
  return shape;
}

// One pass that gathers K² weighted neighbours for every pixel of `out`: the forward (source = value), or its adjoint
// (source = the gradient of the output), which walks the taps backwards and takes attn from where the source is. Where
// the call is not square, the adjoint adds to `out`, which is zero before, has the accumulation type, and the channels
// of a pixel side by side.
struct Gather {
  Shape shape;
  MapView out, source, attn;
  MatrixView mul, add;
  bool adjoint;
};

// One pass over the taps for everything that is a sum over channels or pixels. A null pointer is a gradient that nobody
// asked for. There are `sums` sums over pixels: one for every sample, or one for all of them where the matrices are
// shared. Each is split into `chunks` partial results, [sums][chunks][C][K²] in the accumulation type; neither the
// partition nor the result depends on the number of threads.
struct Reduce {
  Shape shape;
  MapView value, attn, grad;
  MatrixView mul;
  MapView grad_attn;
  void *partial_mul, *partial_add;
  int64_t sums, chunks;

  int64_t samples_of_a_sum() const { return shape.batch / sums; }
};

}  // namespace elsa::ghost_head
