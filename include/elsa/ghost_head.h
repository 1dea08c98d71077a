// The ghost head for programs against LibTorch, which link elsa_ext::elsa_cpu or load libelsa_cpu.so.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <tuple>

namespace elsa {

/// Sums the K × K neighbours of every pixel under a filter per channel, made of one attention map per head.
///
///   out[b,c,y,x] = Σ_ij (ghost_mul[c,i,j] · attn[b,h(c),i,j,y,x] + ghost_add[c,i,j]) · value[b,c,y',x']
///
/// with y' = stride · y + (i − K/2) · dilation, x' likewise, and h(c) = c / (C / heads); value is zero outside the map.
/// Other borders have other y' and x', those of neighborhood_logits for an output at (stride · y, stride · x), and a
/// tap that does not count has no weight. Sizes and flags are one number for both axes, or one for each.
///
/// value      (B, C, H, W) in float64, float32, bfloat16 or float16, contiguous or channels_last
/// attn       (B, heads·K², H / stride, W / stride), head-major, then row-major K × K; value's dtype
/// ghost_mul  (C, K, K), or (B, C, K, K) for one per sample; value's dtype, or float32 beside a 16-bit value; absent: 1
/// ghost_add  like ghost_mul; absent: 0
///
/// Returns (B, C, H / stride, W / stride) in value's dtype and memory format. What it throws names the argument.
/// Derivatives are registered by the Python package; without it, call ghost_head_backward.
inline at::Tensor ghost_head(const at::Tensor& value, const at::Tensor& attn,
                             const std::optional<at::Tensor>& ghost_mul, const std::optional<at::Tensor>& ghost_add,
                             at::IntArrayRef kernel_size, at::IntArrayRef dilation = {1, 1},
                             at::IntArrayRef stride = {1, 1}, std::string_view border = "zeros",
                             at::IntArrayRef window_stride = {1, 1}, at::IntArrayRef causal = {0, 0}) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("elsa::ghost_head", "").typed<decltype(ghost_head)>();
  return op.call(value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride, border, window_stride, causal);
}

/// The gradients of value, attn, ghost_mul and ghost_add, from `grad`, that of the result. One that is not needed, or
/// that of a matrix that is absent, is an empty tensor of shape (0,) and costs nothing.
inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> ghost_head_backward(
    const at::Tensor& grad, const at::Tensor& value, const at::Tensor& attn, const std::optional<at::Tensor>& ghost_mul,
    const std::optional<at::Tensor>& ghost_add, at::IntArrayRef kernel_size, at::IntArrayRef dilation = {1, 1},
    at::IntArrayRef stride = {1, 1}, bool need_value = true, bool need_attn = true, bool need_mul = true,
    bool need_add = true, std::string_view border = "zeros", at::IntArrayRef window_stride = {1, 1},
    at::IntArrayRef causal = {0, 0}) {
  using Map = const at::Tensor&;
  using Matrix = const std::optional<at::Tensor>&;
  using Sizes = at::IntArrayRef;
  using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::ghost_head_backward", "")
                             .typed<Gradients(Map, Map, Map, Matrix, Matrix, Sizes, Sizes, Sizes, std::string_view,
                                              Sizes, Sizes, bool, bool, bool, bool)>();
  return op.call(grad, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride, border, window_stride, causal,
                 need_value, need_attn, need_mul, need_add);
}

}  // namespace elsa
