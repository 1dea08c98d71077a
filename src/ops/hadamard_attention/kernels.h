// What a device brings to elsa::hadamard_attention.
#pragma once

#include "../../torch/tensor.h"
#include "contract.h"

namespace elsa::hadamard_attention {

// The weights, contiguous and in one dtype.
struct Parameters {
  Tensor conv_weight;
  OptionalTensor conv_bias;
  Tensor proj_weight;
  OptionalTensor proj_bias;
};

// The inputs of a call that was checked and whose output has pixels.
struct Inputs {
  Shape shape;
  double scale;
  const Tensor &query, &key;
  Parameters parameters;
};

// Which gradients are asked for. A bias that is absent has none.
struct Needs {
  bool query, key, conv_weight, conv_bias, proj_weight, proj_bias;

  bool maps() const { return query || key; }
  bool conv() const { return conv_weight || conv_bias; }
  bool proj() const { return proj_weight || proj_bias; }
};

// The gradients that are asked for; the others are what stands for one that is not. Those of query and key have been
// allocated. Those of the weights are the device's to assign, in any dtype and shape.
struct Gradients {
  Tensor query, key, conv_weight, conv_bias, proj_weight, proj_bias;
};

struct Kernels {
  ScalarType (*parameter_dtype)(const Tensor& query);  // that the device wants the weights in
  void (*forward)(const Inputs& in, const Tensor& attn);
  void (*backward)(const Inputs& in, const Tensor& grad, const Tensor& attn, const Needs& needs, Gradients& gradients);
};

// Those of the device that this library is for.
extern const Kernels kernels;

}  // namespace elsa::hadamard_attention
