// The oracle: both ops as scalar loops in double precision over contiguous arrays. Includes neither torch nor CUDA.
//
// A null pointer is an absent input or, among the gradients, one that is not wanted. Gradients are overwritten.
#pragma once

#include "elsa/ghost_head.h"
#include "elsa/hadamard_attention.h"

namespace elsa::reference {

struct GhostHeadInputs {
  const double *value, *attn, *mul, *add;
  bool mul_per_sample, add_per_sample;
};

struct GhostHeadGradients {
  double *value, *attn, *mul, *add;
};

void ghost_head(const GhostHeadShape& shape, const GhostHeadInputs& in, double* out);
void ghost_head_backward(const GhostHeadShape& shape, const GhostHeadInputs& in, const double* grad,
                         const GhostHeadGradients& gradients);

struct HadamardInputs {
  const double *query, *key, *conv_weight, *conv_bias, *proj_weight, *proj_bias;
};

struct HadamardGradients {
  double *query, *key, *conv_weight, *conv_bias, *proj_weight, *proj_bias;
};

void hadamard_attention(const HadamardShape& shape, double scale, const HadamardInputs& in, double* attn);
void hadamard_attention_backward(const HadamardShape& shape, double scale, const HadamardInputs& in, const double* grad,
                                 const HadamardGradients& gradients);

}  // namespace elsa::reference
