// elsa::neighborhood_logits and its backward on any device: checks and allocation around the passes of the device.
#include <tuple>

#include "../../torch/local_attention.h"
#include "../../torch/registration.h"
#include "kernels.h"

namespace elsa::neighborhood_logits {
namespace {

Sizes logits_size(const LocalShape& shape) {
  return {shape.batch, shape.heads * shape.taps(), shape.height, shape.width};
}

Tensor forward(const Tensor& query, const Tensor& key, const OptionalTensor& bias, int64_t heads,
               const Sizes& kernel_size, const Sizes& dilation, double scale, const std::string& border,
               const Sizes& window_stride, const Sizes& causal) {
  const LocalShape shape =
      checked_local_shape(query, key, {heads, scale, {kernel_size, dilation, border, window_stride, causal}});
  const Bias added(bias, shape, query);
  const Tensor logits = empty_in_format(query, logits_size(shape));
  if (logits.numel() > 0) kernels.forward({shape, map_view(query), map_view(key), map_view(logits), added.view});
  return logits;
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& query, const Tensor& key,
                                            const OptionalTensor& bias, int64_t heads, const Sizes& kernel_size,
                                            const Sizes& dilation, double scale, const std::string& border,
                                            const Sizes& window_stride, const Sizes& causal, bool need_query,
                                            bool need_key, bool need_bias) {
  need_bias = need_bias && bias;
  const LocalShape shape =
      checked_local_shape(query, key, {heads, scale, {kernel_size, dilation, border, window_stride, causal}});
  const Bias added(bias, shape, query);
  check_like("grad", grad, "query", query);
  check_sizes("grad", grad, logits_size(shape));

  const Tensor grad_query = need_query ? empty_in_format(query, sizes(query)) : no_gradient(query);
  const int64_t chunks = grad.numel() > 0 ? kernels.chunks(shape) : 1;
  const MapGradient grad_key(need_key, key);
  const BiasGradient grad_bias(need_bias, added, shape, chunks);
  if (grad.numel() > 0 && (need_query || need_key || need_bias)) {
    Backward pass{shape, map_view(query), map_view(key), map_view(grad), added.view, {}, {}, nullptr, chunks};
    if (need_query) pass.grad_query = map_view(grad_query);
    pass.sum_key = grad_key.view();
    pass.partial_bias = grad_bias.data();
    kernels.backward(pass);
  }
  return {grad_query, grad_key.finish(), grad_bias.finish(query)};
}

ELSA_OP(neighborhood_logits, forward,
        "(Tensor query, Tensor key, Tensor? bias=None, *, int heads, int[2] kernel_size, int[2] dilation=1, "
        "float scale=1.0, str border=\"zeros\", int[2] window_stride=1, int[2] causal=0) -> Tensor")
ELSA_OP(neighborhood_logits_backward, backward,
        "(Tensor grad, Tensor query, Tensor key, Tensor? bias=None, *, int heads, int[2] kernel_size, "
        "int[2] dilation=1, float scale=1.0, str border=\"zeros\", int[2] window_stride=1, int[2] causal=0, "
        "bool need_query=True, bool need_key=True, bool need_bias=True) -> (Tensor, Tensor, Tensor)")

}  // namespace
}  // namespace elsa::neighborhood_logits
