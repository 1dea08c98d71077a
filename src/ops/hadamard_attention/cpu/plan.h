// How the CPU does hadamard_attention: what its kernels go by, and what launch_plan shows.
#pragma once

#include "../../../cpu/dispatch.h"
#include "../../../cpu/tiling.h"
#include "../contract.h"

namespace elsa::hadamard_attention {

// How the k-th channels of a vector's groups reach its lanes: they lie so in memory, a permutation brings them there,
// or the whole vector belongs to one group.
enum class Spread { memory, permutation, broadcast };

// A unit of work is a tile of one sample's pixels with all of their channels. Channels lie in slices, the last one
// padded.
struct Plan {
  // Pixels that the convolution works on at once: it does not share sums among more, nor do tiles end within them.
  static constexpr int64_t strip_pixels = 7;

  Shape shape;
  int64_t slice;       // channels, two vectors of them
  bool permutes;       // whether the instruction set has permutations known only at run time
  cpu::Tiling tiling;  // of the pooled map
  int64_t band;        // rows of a tile that go through the whole chain at once
  int64_t chunks;      // partial sums of the gradients of the weights

  // For vectors of `vector_bytes` bytes and sums in `dtype`.
  Plan(const Shape& shape, int64_t vector_bytes, DType dtype);

  int64_t tiles() const { return shape.batch * tiling.count(); }
  int64_t tile_cost() const {  // in multiply-adds
    return tiling.pixels() * shape.channels *
           (shape.taps() * shape.group_width() + shape.attn_channels() / shape.proj_groups);
  }

  // K where the convolution's loops are compiled for it, else 0: they take any K and dilation.
  int64_t compiled_taps;

  Spread spread() const {
    const int64_t lanes = slice / 2, width = shape.group_width();
    if (width > 1 && width % lanes == 0) return Spread::broadcast;
    return permutes && width > 1 && lanes % width == 0 ? Spread::permutation : Spread::memory;
  }

  // What a tile reads of the pooled product at most.
  int64_t window_rows() const;
  int64_t window_columns() const;
  int64_t window_size() const { return window_rows() * window_columns() * slices() * slice; }

  int64_t slices() const { return divide_up(shape.channels, slice); }
  int64_t padded(int64_t count) const { return divide_up(count, slice) * slice; }
  // From pixel to pixel in scratch: every group of the projection may be written in whole slices, one after another.
  int64_t hidden_stride() const { return padded((shape.proj_groups - 1) * shape.terms() + padded(shape.terms())); }
  int64_t logits_stride() const { return padded((shape.proj_groups - 1) * shape.outputs() + padded(shape.outputs())); }

  // Scratch of a thread, in elements: the window, with Spread::memory a slice of it spread, a row of a slice, and what
  // a band has.
  int64_t spread_size() const {
    return spread() == Spread::memory && shape.group_width() > 1 ? window_size() / slices() * shape.group_width() : 0;
  }
  int64_t row_size() const { return tiling.columns * slice; }
  int64_t hidden_size() const { return band * tiling.columns * hidden_stride(); }
  int64_t logits_size() const { return band * tiling.columns * logits_stride(); }

  // Packed weights: [slices][K][group_width][K][slice], [slices][slice], and of every group of the projection
  // [outputs / slice][terms][slice], or [terms / slice][outputs][slice] of its adjoint.
  int64_t conv_size() const { return slices() * slice * shape.group_width() * shape.taps(); }
  int64_t conv_bias_size() const { return slices() * slice; }
  int64_t proj_size() const { return shape.proj_groups * padded(shape.outputs()) * shape.terms(); }
  int64_t proj_bias_size() const { return shape.proj_groups * padded(shape.outputs()); }
  int64_t proj_adjoint_size() const { return shape.proj_groups * padded(shape.terms()) * shape.outputs(); }

  // The partial sums of a chunk: the convolution's as they are packed, then [heads·K²][padded terms] and
  // [heads·K²] of the projection.
  int64_t proj_gradient_size() const { return shape.attn_channels() * padded(shape.terms()); }
  int64_t partial_size() const {
    return conv_size() + conv_bias_size() + proj_gradient_size() + padded(shape.attn_channels());
  }
};

// One call, forward or backward, in the accumulation type but for the maps of the op itself. What a kernel does not
// mention is absent; a gradient whose pointer is null is one that nobody asked for.
struct Call {
  const Plan& plan;
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
  bool needs_proj() const { return grad_proj_weight != nullptr || grad_proj_bias != nullptr; }

  int64_t packed_size() const {
    return plan.conv_size() + plan.conv_bias_size() +
           (backward ? plan.conv_size() + plan.proj_adjoint_size() : plan.proj_size() + plan.proj_bias_size());
  }
  // One unit of packing per slice of the convolution's channels or of the projection's outputs or terms.
  int64_t panels() const {
    const int64_t columns = backward ? plan.shape.terms() : plan.shape.outputs();
    return plan.shape.proj_groups * plan.padded(columns) / plan.slice;
  }
};

struct VectorKernels {
  int64_t vector_bytes;
  // packed from the weights; units are slices of the convolution, then panels.
  void (*pack)(const Call&, int64_t first_unit, int64_t last_unit);
  // attn from query, key and packed; units are tiles.
  void (*forward)(const Call&, int64_t first_unit, int64_t last_unit);
  // grad_conv, if a map needs it, and partial from query, key, packed, attn and grad; units are chunks of tiles.
  void (*backward)(const Call&, int64_t first_unit, int64_t last_unit);
  // grad_query and grad_key from query, key, packed and grad_conv; units are tiles.
  void (*adjoint)(const Call&, int64_t first_unit, int64_t last_unit);
  // The gradients of the weights from partial; units are slices of the convolution, then rows of the projection.
  void (*sum_partial)(const Call&, int64_t first_unit, int64_t last_unit);
};

ELSA_VECTOR_KERNELS(VectorKernels)

}  // namespace elsa::hadamard_attention
