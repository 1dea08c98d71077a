// The ghost head for programs against LibTorch, which link elsa_ext::elsa_cpu or load libelsa_cpu.so.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace elsa {

/// Sums the K × K neighbours of every pixel under a filter per channel, made of one attention map per head.
///
///   out[b,c,y,x] = Σ_ij (ghost_mul[c,i,j] · attn[b,h(c),i,j,y,x] + ghost_add[c,i,j]) · value[b,c,y',x']
///
/// with y' = stride · y + (i − K/2) · dilation, x' likewise, and h(c) = c / (C / heads); value is zero outside the map.
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
                             int64_t kernel_size, int64_t dilation = 1, int64_t stride = 1) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("elsa::ghost_head", "").typed<decltype(ghost_head)>();
  return op.call(value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
}

/// The gradients of value, attn, ghost_mul and ghost_add, from `grad`, that of the result. One that is not needed, or
/// that of a matrix that is absent, is an empty tensor of shape (0,) and costs nothing.
inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> ghost_head_backward(
    const at::Tensor& grad, const at::Tensor& value, const at::Tensor& attn, const std::optional<at::Tensor>& ghost_mul,
    const std::optional<at::Tensor>& ghost_add, int64_t kernel_size, int64_t dilation = 1, int64_t stride = 1,
    bool need_value = true, bool need_attn = true, bool need_mul = true, bool need_add = true) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("elsa::ghost_head_backward", "")
                             .typed<decltype(ghost_head_backward)>();
  return op.call(grad, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride, need_value, need_attn,
                 need_mul, need_add);
}

}  // namespace elsa
