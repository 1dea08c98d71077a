// What elsa::ghost_head computes, for kernels of every device: its shape, and the two passes that it is made of.
//
//   out[b,c,y,x] = Σ_ij (mul[c,i,j] · attn[b,head(c),i,j,y,x] + add[c,i,j]) · value[b,c, s·y+(i−r)·d, s·x+(j−r)·d]
//
// with r = K/2, zero outside the map. Includes neither torch nor CUDA.
#pragma once

#include "../../core/neighbourhood.h"
#include "../../core/views.h"

namespace elsa::ghost_head {

struct Shape {
  int64_t batch, channels, height, width;  // of value
  int64_t heads;
  Neighbourhood neighbourhood;  // the same along both axes

  int64_t taps() const { return neighbourhood.kernel_size * neighbourhood.kernel_size; }
  int64_t head_channels() const { return channels / heads; }
  int64_t out_height() const { return height / neighbourhood.stride; }
  int64_t out_width() const { return width / neighbourhood.stride; }
};

// One pass that gathers K² weighted neighbours for every pixel of `out`: the forward (source = value), or its adjoint
// (source = the gradient of the output), which walks the taps backwards and takes attn from where the source is.
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
