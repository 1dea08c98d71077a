// The steps of hadamard_attention on the current CUDA device, in the order of `stream`, a cudaStream_t. Between them
// maps are in the dtype of query, channels-last without gaps; the 1 × 1 convolution is PyTorch's matrix product.
#pragma once

#include "../contract.h"

namespace elsa::hadamard_attention {

enum class ConvStep {
  forward,    // hidden = GELU(conv(product) + bias)
  recompute,  // hidden again, and grad times GELU' in the place of grad
  adjoint     // grad_query and grad_key from the convolution's adjoint of grad
};

// The grouped convolution with what comes before and after it: product = pool(scale · query ⊙ key), bias, GELU.
struct Conv {
  Shape shape;
  double scale;
  MapView query, key, hidden, grad, grad_query, grad_key;  // a gradient that nobody asked for has no data
  const void *weight, *bias;
};

// The gradients of the convolution's weight and bias from `grad`, that of its output: partial sums in the accumulation
// type, [chunks][C][C/groups][K²] and [chunks][C].
struct WeightGradient {
  Conv conv;
  void *partial_weight, *partial_bias;
  int64_t chunks;
};

// The softmax over K² of logits + bias; or, where attn is not absent, the logits' gradient from attn's, `in`. The
// logits and their gradient have no gaps. The gradient of bias is the sum of the latter over pixels, of which a call
// leaves `chunks` partial sums in the accumulation type, [chunks][heads·K²], if they have a place.
struct Softmax {
  Shape shape;
  MapView in, attn, out;
  const void* bias;
  void* partial_bias;
  int64_t chunks;
};

void conv(const Conv& call, ConvStep step, void* stream);
void weight_gradient(const WeightGradient& call, void* stream);
void softmax(const Softmax& call, void* stream);

// The partial results of a gradient of the weights that fill the device.
int64_t chunks(const Shape& shape);
// Those of the projection's bias; none where the kernel that takes the softmax's gradient adds up nothing.
int64_t bias_chunks(const Softmax& call);

}  // namespace elsa::hadamard_attention
