// The contract of elsa::hadamard_attention, and the kernels of every instruction set.
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

// How the k-th channels of a vector's groups reach its lanes: they lie so in memory, a permutation brings them there,
// or the whole vector belongs to one group.
enum class Spread { memory, permutation, broadcast };

// How the chain is cut. A unit of work is a tile of one sample's pixels with all of their channels. Channels lie in
// blocks, the last one padded, whose width depends on the instruction set.
struct HadamardPlan {
  // Pixels that the convolution works on at once: it does not share sums among more, nor do tiles end within them.
  static constexpr int64_t pixels_at_once = 7;

  HadamardShape shape;
  int64_t block;                        // channels, two vectors of them
  bool permutes;                        // whether the instruction set has permutations known only at run time
  int64_t rows, columns, down, across;  // of a tile at most, and tiles of a sample
  int64_t band;                         // rows of a tile that go through the whole chain at once
  int64_t chunks;                       // partial sums of the gradients of the weights

  HadamardPlan(const HadamardShape& shape, int64_t block, bool permutes);

  int64_t taps() const { return shape.kernel_size * shape.kernel_size; }
  int64_t group_width() const { return shape.channels / shape.groups; }
  int64_t tiles() const { return shape.batch * down * across; }
  int64_t tile_cost() const {
    return rows * columns * shape.channels * (taps() * group_width() + shape.attn_channels() / shape.proj_groups);
  }

  // K where the convolution's loops are compiled for it, else 0: they take any K and dilation.
  int64_t compiled_taps() const {
    const int64_t size = shape.kernel_size;
    return shape.dilation == 1 && (size == 3 || size == 5 || size == 7) ? size : 0;
  }

  Spread spread() const {
    const int64_t lanes = block / 2, width = group_width();
    if (width > 1 && width % lanes == 0) return Spread::broadcast;
    return permutes && width > 1 && lanes % width == 0 ? Spread::permutation : Spread::memory;
  }

  // What a tile reads of the pooled product at most.
  int64_t window_rows() const;
  int64_t window_columns() const;
  int64_t window_size() const { return window_rows() * window_columns() * blocks() * block; }

  int64_t blocks() const { return (shape.channels + block - 1) / block; }
  int64_t terms() const { return shape.channels / shape.proj_groups; }
  int64_t outputs() const { return shape.attn_channels() / shape.proj_groups; }
  int64_t padded(int64_t count) const { return (count + block - 1) / block * block; }
  // From pixel to pixel in scratch: every group of the projection may be written in whole blocks, one after another.
  int64_t hidden_stride() const { return padded((shape.proj_groups - 1) * terms() + padded(terms())); }
  int64_t logits_stride() const { return padded((shape.proj_groups - 1) * outputs() + padded(outputs())); }

  // Scratch of a thread, in elements: the window, with Spread::memory a block of it spread, a row of a block, and what
  // a band has.
  int64_t spread_size() const {
    return spread() == Spread::memory && group_width() > 1 ? window_size() / blocks() * group_width() : 0;
  }
  int64_t row_size() const { return columns * block; }
  int64_t hidden_size() const { return band * columns * hidden_stride(); }
  int64_t logits_size() const { return band * columns * logits_stride(); }

  // Packed weights: [blocks][K][group_width][K][block], [blocks][block], and of every group of the projection
  // [outputs / block][terms][block], or [terms / block][outputs][block] of its adjoint.
  int64_t conv_size() const { return blocks() * block * group_width() * taps(); }
  int64_t conv_bias_size() const { return blocks() * block; }
  int64_t proj_size() const { return shape.proj_groups * padded(outputs()) * terms(); }
  int64_t proj_bias_size() const { return shape.proj_groups * padded(outputs()); }
  int64_t proj_adjoint_size() const { return shape.proj_groups * padded(terms()) * outputs(); }

  // The partial sums of a chunk: the convolution's as they are packed, then [heads·K²][padded terms] and
  // [heads·K²] of the projection.
  int64_t proj_gradient_size() const { return shape.attn_channels() * padded(terms()); }
  int64_t partial_size() const {
    return conv_size() + conv_bias_size() + proj_gradient_size() + padded(shape.attn_channels());
  }
};

// One call, forward or backward, in the accumulation type but for the maps of the op itself. What a kernel does not
// mention is absent; a gradient whose pointer is null is one that nobody asked for.
struct HadamardCall {
  HadamardPlan plan;
  double scale;
  bool backward;
  MapView query, key, attn;
  const void *conv_weight, *conv_bias, *proj_weight, *proj_bias;
  void* packed = nullptr;  // conv and its bias; then proj and its bias, or the adjoints of conv and proj where backward
  MapView grad{}, grad_conv{}, grad_query{}, grad_key{};  // grad_conv: of the convolution's output, channels-last
  void* partial = nullptr;                                // [chunks][partial_size]
  void *grad_conv_weight = nullptr, *grad_conv_bias = nullptr, *grad_proj_weight = nullptr, *grad_proj_bias = nullptr;

  bool needs_maps() const { return grad_query.data != nullptr || grad_key.data != nullptr; }
  bool needs_conv() const { return grad_conv_weight != nullptr || grad_conv_bias != nullptr; }

  int64_t packed_size() const {
    return plan.conv_size() + plan.conv_bias_size() +
           (backward ? plan.conv_size() + plan.proj_adjoint_size() : plan.proj_size() + plan.proj_bias_size());
  }
  // One unit of packing per block of the convolution's channels or of the projection's outputs or terms.
  int64_t panels() const {
    return plan.shape.proj_groups * plan.padded(backward ? plan.terms() : plan.outputs()) / plan.block;
  }
};

struct HadamardKernels {
  int64_t vector_bytes;
  // packed from the weights; units are blocks of the convolution, then panels.
  void (*pack)(const HadamardCall&, int64_t first_unit, int64_t last_unit);
  // attn from query, key and packed; units are tiles.
  void (*forward)(const HadamardCall&, int64_t first_unit, int64_t last_unit);
  // grad_conv, if a map needs it, and partial from query, key, packed, attn and grad; units are chunks of tiles.
  void (*backward)(const HadamardCall&, int64_t first_unit, int64_t last_unit);
  // grad_query and grad_key from query, key, packed and grad_conv; units are tiles.
  void (*adjoint)(const HadamardCall&, int64_t first_unit, int64_t last_unit);
  // The gradients of the weights from partial; units are blocks of the convolution, then rows of the projection.
  void (*sum_partial)(const HadamardCall&, int64_t first_unit, int64_t last_unit);
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

// How they cut a call.
HadamardPlan hadamard_plan(const HadamardShape& shape, DType dtype);

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
  MapView query, key, hidden, grad, grad_query, grad_key;  // a gradient that nobody asked for has no data
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
