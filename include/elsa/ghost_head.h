// The contract of elsa::ghost_head: its shape, the views that its kernels read, and the kernels of every instruction
// set.
//
//   out[b,c,y,x] = Σ_ij (mul[c,i,j] · attn[b,head(c),i,j,y,x] + add[c,i,j]) · value[b,c, s·y+(i−r)·d, s·x+(j−r)·d]
//
// with r = K/2, zero outside the map. Includes neither torch nor CUDA.
#pragma once

#include <cstdint>

namespace elsa {

enum class DType { float64, float32, bfloat16, float16 };

struct GhostHeadShape {
  int64_t batch, channels, height, width;  // of value
  int64_t heads, kernel_size, dilation, stride;

  int64_t taps() const { return kernel_size * kernel_size; }
  int64_t head_channels() const { return channels / heads; }
  int64_t out_height() const { return height / stride; }
  int64_t out_width() const { return width / stride; }
};

// A (B, C, H, W) tensor with any strides, counted in elements.
struct MapView {
  void* data;
  DType dtype;
  int64_t height, width;
  int64_t batch_stride, channel_stride, row_stride, column_stride;
};

// Contiguous (C, K, K) matrices; batch_stride is C·K² for one per sample and 0 for shared ones. Absent if data is null.
struct MatrixView {
  const void* data;
  DType dtype;
  int64_t batch_stride;
};

// One pass that gathers K² weighted neighbours for every pixel of `out`: the forward (source = value), or its adjoint
// (source = the gradient of the output), which walks the taps backwards and takes attn from where the source is.
struct GhostHeadGather {
  GhostHeadShape shape;
  MapView out, source, attn;
  MatrixView mul, add;
  bool adjoint;
};

// One pass over the taps for everything that is a sum over channels or pixels. A null pointer is a gradient that nobody
// asked for. Sums over pixels go to `chunks` partial results per sample (or for all samples where the matrices are
// shared), [samples][chunks][C][K²] in the accumulation type; the partition does not depend on the number of threads,
// nor does the result.
struct GhostHeadReduce {
  GhostHeadShape shape;
  MapView value, attn, grad;
  MatrixView mul;
  MapView grad_attn;
  void *partial_mul, *partial_add;
  int64_t samples, chunks;
};

namespace cpu {

// How a map is cut: tiles of at most rows × columns pixels, as even as the map allows.
struct Tiling {
  int64_t rows, columns, down, across;

  static constexpr int64_t max_rows = 14, max_columns = 28;

  Tiling(int64_t height, int64_t width)
      : down((height + max_rows - 1) / max_rows), across((width + max_columns - 1) / max_columns) {
    rows = (height + down - 1) / down;
    columns = (width + across - 1) / across;
  }
  int64_t count() const { return down * across; }
  int64_t pixels() const { return rows * columns; }
};

inline Tiling tiling(const GhostHeadGather& op) { return {op.out.height, op.out.width}; }
inline Tiling tiling(const GhostHeadReduce& op) { return {op.shape.out_height(), op.shape.out_width()}; }

// The tiles of the samples that share their partial results.
inline int64_t tiles(const GhostHeadReduce& op) { return op.shape.batch / op.samples * tiling(op).count(); }

// Partial results per group of samples: enough for many threads, and a bounded number of them.
inline int64_t chunks(const GhostHeadReduce& op) {
  constexpr int64_t most = 64;
  const int64_t wanted = most / op.samples > 1 ? most / op.samples : 1;
  return tiles(op) < wanted ? tiles(op) : wanted;
}

// The most source pixels that a tile can need along one axis, `step` apart for neighbouring results.
inline int64_t longest_axis(int64_t pixels, int64_t step, int64_t extent, const GhostHeadShape& shape) {
  const int64_t reach = (shape.kernel_size - 1) * shape.dilation;
  const int64_t most = extent + step * pixels;
  return step * (pixels - 1) + (reach < most ? reach : most) + 1;
}

struct GhostHeadKernels {
  int64_t vector_bytes, pixels_at_once;
  void (*gather)(const GhostHeadGather&, int64_t first_unit, int64_t last_unit);
  void (*reduce)(const GhostHeadReduce&, int64_t first_unit, int64_t last_unit);
};

namespace baseline {
extern const GhostHeadKernels ghost_head;
}
namespace avx2 {
extern const GhostHeadKernels ghost_head;
}
namespace avx512 {
extern const GhostHeadKernels ghost_head;
}

// The kernels of the instruction set in use.
const GhostHeadKernels& ghost_head();

}  // namespace cpu

namespace cuda {

// On the current device, in the order of `stream`, a cudaStream_t.
void ghost_head_gather(const GhostHeadGather& op, void* stream);
void ghost_head_reduce(const GhostHeadReduce& op, void* stream);

// The partial results per group of samples that fill the current device.
int64_t ghost_head_chunks(const GhostHeadReduce& op);

}  // namespace cuda
}  // namespace elsa
