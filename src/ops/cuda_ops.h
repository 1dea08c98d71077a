// The ops on CUDA devices, as the dispatcher calls them.
#pragma once

#include "ghost_head.h"
#include "hadamard_attention.h"

namespace elsa::cuda_ops {

Tensor ghost_head(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
                  const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride);

GhostHeadGradients ghost_head_backward(const Tensor& grad, const Tensor& value, const Tensor& attn,
                                       const OptionalTensor& ghost_mul, const OptionalTensor& ghost_add,
                                       int64_t kernel_size, int64_t dilation, int64_t stride, bool need_value,
                                       bool need_attn, bool need_mul, bool need_add);

Tensor hadamard_attention(const Tensor& query, const Tensor& key, const Tensor& conv_weight,
                          const OptionalTensor& conv_bias, const Tensor& proj_weight, const OptionalTensor& proj_bias,
                          int64_t heads, double scale, int64_t dilation, int64_t stride, int64_t proj_groups);

HadamardGradients hadamard_attention_backward(const Tensor& grad, const Tensor& attn, const Tensor& query,
                                              const Tensor& key, const Tensor& conv_weight,
                                              const OptionalTensor& conv_bias, const Tensor& proj_weight,
                                              const OptionalTensor& proj_bias, int64_t heads, double scale,
                                              int64_t dilation, int64_t stride, int64_t proj_groups, bool need_query,
                                              bool need_key, bool need_conv_weight, bool need_conv_bias,
                                              bool need_proj_weight, bool need_proj_bias);

}  // namespace elsa::cuda_ops
