// Neighborhood attention for programs against LibTorch, which link elsa_ext::elsa_cpu or load libelsa_cpu.so.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>

namespace elsa {

/// Lets every query attend to its neighbourhood: the softmax of its logits, and the values under it.
///
///   out[b,h,c,i] = Σ_t softmax_t(logit[b,h,t,i]) · value[b,h,c,j(i,t)]
///
/// with the logits, the neighbours j(i,t), the arguments and the options of neighborhood_logits.
///
/// value  (B, Cv, H, W), whose channels heads divides; query's dtype. Beyond the map it is zero.
///
/// Returns (B, Cv, H, W) in query's dtype and memory format. What it throws names the argument. Derivatives are
/// registered by the Python package; without it, call neighborhood_attention_backward.
inline at::Tensor neighborhood_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                         const std::optional<at::Tensor>& bias, int64_t heads,
                                         at::IntArrayRef kernel_size, at::IntArrayRef dilation = {1, 1},
                                         double scale = 1.0, std::string_view border = "zeros",
                                         at::IntArrayRef window_stride = {1, 1}, at::IntArrayRef causal = {0, 0}) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::neighborhood_attention", "")
                             .typed<decltype(neighborhood_attention)>();
  return op.call(query, key, value, bias, heads, kernel_size, dilation, scale, border, window_stride, causal);
}

/// The gradients of query, key, value and bias, from `grad`, that of the result. One that is not needed, or that of a
/// bias that is absent, is an empty tensor of shape (0,) and costs nothing.
inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> neighborhood_attention_backward(
    const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const std::optional<at::Tensor>& bias, int64_t heads, at::IntArrayRef kernel_size,
    at::IntArrayRef dilation = {1, 1}, double scale = 1.0, std::string_view border = "zeros",
    at::IntArrayRef window_stride = {1, 1}, at::IntArrayRef causal = {0, 0}, bool need_query = true,
    bool need_key = true, bool need_value = true, bool need_bias = true) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::neighborhood_attention_backward", "")
                             .typed<decltype(neighborhood_attention_backward)>();
  return op.call(grad, query, key, value, bias, heads, kernel_size, dilation, scale, border, window_stride, causal,
                 need_query, need_key, need_value, need_bias);
}

}  // namespace elsa
