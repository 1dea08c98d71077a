// elsa::ghost_head and its backward for any device: argument checks and allocation around the passes of the device.
#pragma once

#include <tuple>

#include "elsa/ghost_head.h"
#include "tensor.h"

namespace elsa {

// What a device brings.
struct GhostHeadPasses {
  void (*gather)(const GhostHeadGather& op);
  void (*reduce)(const GhostHeadReduce& op);
  int64_t (*chunks)(const GhostHeadReduce& op);  // partial results per group of samples
  Tensor (*sum_partials)(const Tensor& partial, int64_t groups, const Sizes& size);
};

using GhostHeadGradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Tensor ghost_head(const GhostHeadPasses& passes, const Tensor& value, const Tensor& attn,
                  const OptionalTensor& ghost_mul, const OptionalTensor& ghost_add, int64_t kernel_size,
                  int64_t dilation, int64_t stride);

GhostHeadGradients ghost_head_backward(const GhostHeadPasses& passes, const Tensor& grad, const Tensor& value,
                                       const Tensor& attn, const OptionalTensor& ghost_mul,
                                       const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation,
                                       int64_t stride, bool need_value, bool need_attn, bool need_mul, bool need_add);

}  // namespace elsa
