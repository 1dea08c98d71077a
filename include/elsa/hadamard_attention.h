// The contract of elsa::hadamard_attention, and the kernels of every instruction set for its first step.
//
//   attn = softmax_K²( Conv1x1( GELU( GroupConv_KxK( pool_s( scale · query ⊙ key )))))
//
// Includes neither torch nor CUDA.
#pragma once

#include "elsa/ghost_head.h"

namespace elsa {

struct HadamardShape {
  int64_t batch, channels, height, width;  // of query and key
  int64_t heads, kernel_size, dilation, stride, groups, proj_groups;

  int64_t attn_channels() const { return heads * kernel_size * kernel_size; }
  int64_t out_height() const { return height / stride; }
  int64_t out_width() const { return width / stride; }
};

namespace cpu {

// product = pool_s(scale · query ⊙ key), one unit of work per row of the product.
struct HadamardProduct {
  HadamardShape shape;
  double scale;
  MapView query, key, product;

  int64_t units() const { return shape.batch * shape.out_height(); }
  int64_t unit_cost() const { return shape.stride * shape.width * shape.channels; }
};

// The gradients of query and key from that of the product, one unit of work per row of query.
struct HadamardProductBackward {
  HadamardShape shape;
  double scale;
  MapView query, key, grad, grad_query, grad_key;

  int64_t units() const { return shape.batch * shape.height; }
  int64_t unit_cost() const { return shape.width * shape.channels; }
};

// The grouped K × K convolution, or its adjoint, over channels-last maps in the accumulation type; weight is (C,
// C/groups, K, K), contiguous. One unit of work per tile and block of channels.
struct GroupedConv {
  int64_t batch, channels, kernel_size, dilation, groups;
  MapView in, out;
  const void *weight, *bias;
  bool adjoint;

  Tiling tiling() const { return {out.height, out.width}; }
  int64_t tiles() const { return batch * tiling().count(); }
  int64_t tile_cost() const { return tiling().pixels() * kernel_size * kernel_size * (channels / groups) * 16; }
};

// The gradients of the convolution's weight and bias, where out is the gradient of its output: partial sums over
// `chunks` groups of tiles, [chunks][C][C/groups][K²] and [chunks][C].
struct GroupedConvWeightGradient {
  GroupedConv conv;
  void *partial_weight, *partial_bias;
  int64_t chunks;
};

// The grouped 1 × 1 convolution, or its adjoint, over dense [pixels][channels] maps in the accumulation type; weight is
// (outputs, inputs / groups) of the convolution. One unit of work per unit_pixels pixels.
struct Projection {
  DType dtype;
  int64_t pixels, in_channels, out_channels, groups;
  const void* in;
  void* out;
  const void *weight, *bias;
  bool adjoint;

  static constexpr int64_t unit_pixels = 56;
  int64_t units() const { return (pixels + unit_pixels - 1) / unit_pixels; }
  int64_t unit_cost() const { return unit_pixels * in_channels * out_channels / groups; }
};

// The gradients of the projection's weight and bias, where out is the gradient of its output: partial sums over
// `chunks` ranges of pixels, [chunks][outputs][inputs/groups] and [chunks][outputs].
struct ProjectionWeightGradient {
  Projection projection;
  void *partial_weight, *partial_bias;
  int64_t chunks;
};

// out = GELU(x), or grad · GELU'(x) where grad is not null, over dense arrays. One unit of work per unit_size elements.
struct Gelu {
  DType dtype;
  int64_t size;
  const void *x, *grad;
  void* out;

  static constexpr int64_t unit_size = 1024;
  int64_t units() const { return (size + unit_size - 1) / unit_size; }
  int64_t unit_cost() const { return unit_size * 16; }
};

// The softmax over K² of the logits `in`, or the logits' gradient where `attn` is not absent and `in` is attn's
// gradient; any layout and dtype. One unit of work per row of pixels.
struct Softmax {
  HadamardShape shape;
  MapView in, attn, out;

  int64_t units() const { return shape.batch * shape.out_height(); }
  int64_t unit_cost() const { return shape.out_width() * shape.attn_channels() * 16; }
};

struct HadamardKernels {
  int64_t conv_block_bytes;  // what a block of the convolution's channels takes in the accumulation type
  void (*conv)(const GroupedConv&, int64_t first_unit, int64_t last_unit);
  void (*conv_weight_gradient)(const GroupedConvWeightGradient&, int64_t first_unit, int64_t last_unit);
  void (*projection)(const Projection&, int64_t first_unit, int64_t last_unit);
  void (*projection_weight_gradient)(const ProjectionWeightGradient&, int64_t first_unit, int64_t last_unit);
  void (*gelu)(const Gelu&, int64_t first_unit, int64_t last_unit);
  void (*softmax)(const Softmax&, int64_t first_unit, int64_t last_unit);
  void (*product)(const HadamardProduct&, int64_t first_unit, int64_t last_unit);
  void (*product_backward)(const HadamardProductBackward&, int64_t first_unit, int64_t last_unit);
};

namespace baseline {
extern const HadamardKernels hadamard_attention;
}
namespace avx2 {
extern const HadamardKernels hadamard_attention;
}
namespace avx512 {
extern const HadamardKernels hadamard_attention;
}

// The kernels of the instruction set in use.
const HadamardKernels& hadamard_attention();

}  // namespace cpu

// On a CUDA device the steps keep their maps in the dtype of query, channels-last without gaps, and the 1 × 1
// convolution is PyTorch's matrix product.
namespace cuda {

enum class ConvStep {
  forward,    // hidden = GELU(conv(product) + bias)
  recompute,  // hidden again, and grad times GELU' in the place of grad
  adjoint     // grad_query and grad_key from the convolution's adjoint of grad
};

// The grouped convolution with what comes before and after it: product = pool_s(scale · query ⊙ key), bias, GELU.
struct HadamardConv {
  HadamardShape shape;
  double scale;
  MapView query, key, hidden, grad, grad_query, grad_key;
  const void *weight, *bias;
};

// The gradients of the convolution's weight and bias from `grad`, that of its output: partial sums in the accumulation
// type, [chunks][C][C/groups][K²] and [chunks][C].
struct HadamardWeightGradient {
  HadamardConv conv;
  void *partial_weight, *partial_bias;
  int64_t chunks;
};

// The softmax over K² of logits + bias; or, where attn is not absent, the logits' gradient from attn's, `in`. The
// logits and their gradient have no gaps.
struct HadamardSoftmax {
  HadamardShape shape;
  MapView in, attn, out;
  const void* bias;
};

// On the current device, in the order of `stream`, a cudaStream_t.
void hadamard_conv(const HadamardConv& op, ConvStep step, void* stream);
void hadamard_weight_gradient(const HadamardWeightGradient& op, void* stream);
void hadamard_softmax(const HadamardSoftmax& op, void* stream);

// The partial results that fill the current device.
int64_t hadamard_chunks(const HadamardConv& op);

}  // namespace cuda
}  // namespace elsa
