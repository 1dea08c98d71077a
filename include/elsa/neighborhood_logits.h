// Neighborhood logits for programs against LibTorch, which link elsa_ext::elsa_cpu or load libelsa_cpu.so.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>

namespace elsa {

/// Multiplies every query with the keys of its neighbourhood.
///
///   logit[b,h,t,i] = scale · Σ_c query[b,h,c,i] · key[b,h,c,j(i,t)] + bias[h,t,i],  −∞ where tap t does not count
///
/// border says what tap t of output i reads, j(i,t), along an axis with K taps at dilation d: "zeros" i + (t − K/2)·d,
/// where the key is zero beyond the map; "mask" the same, but a tap beyond the map does not count; "circular" the same
/// modulo the length; "shift" moves the window until it lies inside, and needs K·d ≤ length. With "shift" alone,
/// window_stride outputs share a window, and with causal taps after the output do not count.
///
/// query, key  (B, C, H, W) in float64, float32, bfloat16 or float16, contiguous or channels_last
/// bias        (heads, Kh·Kw) or (heads, 2·Kh − 1, 2·Kw − 1), also with a batch dimension in front; query's dtype, or
///             float32 beside 16 bits; absent: 0
///
/// Sizes and flags are one for each axis. Returns (B, heads·Kh·Kw, H, W), head-major, then row-major taps, in query's
/// dtype and memory format. What it throws names the argument. Derivatives are registered by the Python package;
/// without it, call neighborhood_logits_backward.
inline at::Tensor neighborhood_logits(const at::Tensor& query, const at::Tensor& key,
                                      const std::optional<at::Tensor>& bias, int64_t heads, at::IntArrayRef kernel_size,
                                      at::IntArrayRef dilation = {1, 1}, double scale = 1.0,
                                      std::string_view border = "zeros", at::IntArrayRef window_stride = {1, 1},
                                      at::IntArrayRef causal = {0, 0}) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::neighborhood_logits", "")
                             .typed<decltype(neighborhood_logits)>();
  return op.call(query, key, bias, heads, kernel_size, dilation, scale, border, window_stride, causal);
}

/// The gradients of query, key and bias, from `grad`, that of the result. One that is not needed, or that of a bias
/// that is absent, is an empty tensor of shape (0,) and costs nothing.
inline std::tuple<at::Tensor, at::Tensor, at::Tensor> neighborhood_logits_backward(
    const at::Tensor& grad, const at::Tensor& query, const at::Tensor& key, const std::optional<at::Tensor>& bias,
    int64_t heads, at::IntArrayRef kernel_size, at::IntArrayRef dilation = {1, 1}, double scale = 1.0,
    std::string_view border = "zeros", at::IntArrayRef window_stride = {1, 1}, at::IntArrayRef causal = {0, 0},
    bool need_query = true, bool need_key = true, bool need_bias = true) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::neighborhood_logits_backward", "")
                             .typed<decltype(neighborhood_logits_backward)>();
  return op.call(grad, query, key, bias, heads, kernel_size, dilation, scale, border, window_stride, causal, need_query,
                 need_key, need_bias);
}

}  // namespace elsa
