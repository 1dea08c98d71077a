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

// Which gradients are asked for. A bias that is absent has none.
struct HadamardNeeds {
  bool query, key, conv_weight, conv_bias, proj_weight, proj_bias;

  HadamardNeeds(const Parameters& parameters, bool query, bool key, bool conv_weight, bool conv_bias, bool proj_weight,
                bool proj_bias)
      : query(query),
        key(key),
        conv_weight(conv_weight),
        conv_bias(conv_bias && parameters.conv_bias),
        proj_weight(proj_weight),
        proj_bias(proj_bias && parameters.proj_bias) {}

  bool maps() const { return query || key; }
  bool conv() const { return conv_weight || conv_bias; }
  bool proj() const { return proj_weight || proj_bias; }
};

// Room for the gradient of a map, if it is needed. It is zero already where the pooling drops rows or columns.
Tensor map_gradient(const Tensor& map, const HadamardShape& shape, bool needed);

// The gradients of a call whose output has no pixels: zeros.
HadamardGradients zero_gradients(const Tensor& query, const Tensor& key, const Parameters& parameters,
                                 const HadamardShape& shape, const HadamardNeeds& needs);

}  // namespace elsa
