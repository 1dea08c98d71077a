// Hadamard attention for programs against LibTorch, which link elsa_ext::elsa_cpu or load libelsa_cpu.so.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace elsa {

/// Makes a K × K attention map for every head and pixel from the product of query and key.
///
///   attn = softmax_K²( Conv1x1( GELU( GroupConv_KxK( pool_stride( scale · query ⊙ key )))))
///
/// where pool is the average over stride × stride pixels, and both convolutions keep the size of their input.
///
/// query, key   (B, C, H, W) in float64, float32, bfloat16 or float16, contiguous or channels_last
/// conv_weight  (C, C / groups, K, K), K odd; query's dtype, as the other parameters
/// conv_bias    (C,) or absent
/// proj_weight  (heads·K², C / proj_groups), or with a trailing 1 × 1
/// proj_bias    (heads·K²,) or absent
///
/// Returns (B, heads·K², H / stride, W / stride), head-major, then row-major K × K, in query's dtype and memory format:
/// what elsa::ghost_head takes. What it throws names the argument. Derivatives are registered by the Python package;
/// without it, call hadamard_attention_backward.
inline at::Tensor hadamard_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& conv_weight,
                                     const std::optional<at::Tensor>& conv_bias, const at::Tensor& proj_weight,
                                     const std::optional<at::Tensor>& proj_bias, int64_t heads, double scale = 1.0,
                                     int64_t dilation = 1, int64_t stride = 1, int64_t proj_groups = 1) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::hadamard_attention", "")
                             .typed<decltype(hadamard_attention)>();
  return op.call(query, key, conv_weight, conv_bias, proj_weight, proj_bias, heads, scale, dilation, stride,
                 proj_groups);
}

/// The gradients of query, key, conv_weight, conv_bias, proj_weight and proj_bias, from `attn`, the result, and `grad`,
/// its gradient. One that is not needed, or that of a bias that is absent, is an empty tensor of shape (0,).
inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> hadamard_attention_backward(
    const at::Tensor& grad, const at::Tensor& attn, const at::Tensor& query, const at::Tensor& key,
    const at::Tensor& conv_weight, const std::optional<at::Tensor>& conv_bias, const at::Tensor& proj_weight,
    const std::optional<at::Tensor>& proj_bias, int64_t heads, double scale = 1.0, int64_t dilation = 1,
    int64_t stride = 1, int64_t proj_groups = 1, bool need_query = true, bool need_key = true,
    bool need_conv_weight = true, bool need_conv_bias = true, bool need_proj_weight = true,
    bool need_proj_bias = true) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::hadamard_attention_backward", "")
                             .typed<decltype(hadamard_attention_backward)>();
  return op.call(grad, attn, query, key, conv_weight, conv_bias, proj_weight, proj_bias, heads, scale, dilation, stride,
                 proj_groups, need_query, need_key, need_conv_weight, need_conv_bias, need_proj_weight, need_proj_bias);
}

}  // namespace elsa
