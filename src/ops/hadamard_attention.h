// What elsa::hadamard_attention is on any device: its parameters and their checks.
#pragma once

#include <tuple>

#include "elsa/hadamard_attention.h"
#include "tensor.h"

namespace elsa {

struct Parameters {
  Tensor conv_weight;
  OptionalTensor conv_bias;
  Tensor proj_weight;
  OptionalTensor proj_bias;
};

// The inputs are what the op takes; anything else is an error that names `op`.
HadamardShape checked_shape(const char* op, const Tensor& query, const Tensor& key, const Parameters& parameters,
                            int64_t heads, int64_t dilation, int64_t stride, int64_t proj_groups);

// The two maps that the backward takes beside the inputs.
void check_attn_and_grad(const char* op, const HadamardShape& shape, const Tensor& query, const Tensor& attn,
                         const Tensor& grad);

// The parameters in `dtype`, contiguous.
Parameters parameters_in(const Parameters& parameters, ScalarType dtype);

const void* data(const OptionalTensor& tensor);

using HadamardGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

// The gradients of a call without pixels: zeros.
HadamardGradients zero_gradients(const Tensor& query, const Tensor& key, const Parameters& parameters);

}  // namespace elsa
