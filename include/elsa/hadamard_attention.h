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

struct HadamardKernels {
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
}  // namespace elsa
