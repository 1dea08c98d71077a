// elsa::neighborhood_attention and its backward on any device: checks and allocation around the passes of the device.
#include <tuple>

#include "../../torch/local_attention.h"
#include "../../torch/registration.h"
#include "kernels.h"

namespace elsa::neighborhood_attention {
namespace {

void check_value(const Tensor& value, const Tensor& query, const LocalShape& shape) {
  check_like("value", value, "query", query);
  check(value.dim() == 4, "value must have 4 dimensions (B, C, H, W), got ", value.dim());
  check_sizes("value", value, {shape.batch, value.size(1), shape.height, shape.width});
  check(value.size(1) % shape.heads == 0, "value has ", value.size(1), " channels, not a multiple of the ", shape.heads,
        " heads");
}

// Room for numbers of the accumulation type.
Tensor workspace(const Tensor& query, int64_t numbers) {
  return torch::stable::new_empty(query, {numbers}, accumulation_dtype(query));
}

Tensor forward(const Tensor& query, const Tensor& key, const Tensor& value, const OptionalTensor& bias, int64_t heads,
               const Sizes& kernel_size, const Sizes& dilation, double scale, const std::string& border,
               const Sizes& window_stride, const Sizes& causal) {
  const LocalShape shape =
      checked_local_shape(query, key, {heads, scale, {kernel_size, dilation, border, window_stride, causal}});
  check_value(value, query, shape);
  const Bias added(bias, shape, query);
  const Tensor out = empty_in_format(query, sizes(value));
  if (out.numel() > 0) {
    Forward pass{shape,           value.size(1) / heads, map_view(query), map_view(key),
                 map_view(value), map_view(out),         added.view,      nullptr};
    const Tensor room = workspace(query, kernels.forward_workspace(pass));
    pass.workspace = room.data_ptr();
    kernels.forward(pass);
  }
  return out;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& query, const Tensor& key,
                                                    const Tensor& value, const OptionalTensor& bias, int64_t heads,
                                                    const Sizes& kernel_size, const Sizes& dilation, double scale,
                                                    const std::string& border, const Sizes& window_stride,
                                                    const Sizes& causal, bool need_query, bool need_key,
                                                    bool need_value, bool need_bias) {
  need_bias = need_bias && bias;
  const LocalShape shape =
      checked_local_shape(query, key, {heads, scale, {kernel_size, dilation, border, window_stride, causal}});
  check_value(value, query, shape);
  const Bias added(bias, shape, query);
  check_like("grad", grad, "query", query);
  check_sizes("grad", grad, sizes(value));

  Tensor grad_query = need_query ? empty_in_format(query, sizes(query)) : no_gradient(query);
  const int64_t chunks = grad.numel() > 0 ? kernels.chunks(shape) : 1;
  const MapGradient grad_key(need_key, key), grad_value(need_value, value);
  const BiasGradient grad_bias(need_bias, added, shape, chunks);
  if (grad.numel() == 0) {
    torch::stable::zero_(grad_query);
  } else if (need_query || need_key || need_value || need_bias) {
    Backward pass{
        shape, value.size(1) / heads, map_view(query),   map_view(key),    map_view(value), map_view(grad), added.view,
        {},    grad_key.view(),       grad_value.view(), grad_bias.data(), chunks,          nullptr};
    if (need_query) pass.grad_query = map_view(grad_query);
    const Tensor room = workspace(query, kernels.backward_workspace(pass));
    pass.workspace = room.data_ptr();
    kernels.backward(pass);
  }
  return {grad_query, grad_key.finish(), grad_value.finish(), grad_bias.finish(query)};
}

ELSA_OP(neighborhood_attention, forward,
        "(Tensor query, Tensor key, Tensor value, Tensor? bias=None, *, int heads, int[2] kernel_size, "
        "int[2] dilation=1, float scale=1.0, str border=\"zeros\", int[2] window_stride=1, int[2] causal=0) "
        "-> Tensor")
ELSA_OP(neighborhood_attention_backward, backward,
        "(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor? bias=None, *, int heads, int[2] kernel_size, "
        "int[2] dilation=1, float scale=1.0, str border=\"zeros\", int[2] window_stride=1, int[2] causal=0, "
        "bool need_query=True, bool need_key=True, bool need_value=True, bool need_bias=True) "
        "-> (Tensor, Tensor, Tensor, Tensor)")

}  // namespace
}  // namespace elsa::neighborhood_attention
