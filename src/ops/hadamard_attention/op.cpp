// elsa::hadamard_attention and its backward on any device: checks and allocation around the kernels of the device.
#include <tuple>

#include "../../torch/registration.h"
#include "kernels.h"

namespace elsa::hadamard_attention {
namespace {

void check_parameter(const char* argument, const OptionalTensor& parameter, const Tensor& query,
                     const Sizes& expected) {
  if (parameter) {
    check_like(argument, *parameter, "query", query);
    check_sizes(argument, *parameter, expected);
  }
}

Shape checked_shape(const Tensor& query, const Tensor& key, const Parameters& parameters, int64_t heads,
                    int64_t dilation, int64_t stride, int64_t proj_groups) {
  check_dtype("query", query);
  check(query.dim() == 4, "query must have 4 dimensions (B, C, H, W), got ", query.dim());
  check(query.size(1) > 0 && query.size(2) > 0 && query.size(3) > 0,
        "query must have at least one channel, row and column, got ", sizes(query));
  check_parameter("key", key, query, sizes(query));

  const Sizes conv = sizes(parameters.conv_weight);
  check(conv.size() == 4 && conv[2] == conv[3] && conv[3] % 2 == 1,
        "conv_weight must have shape (C, C/groups, K, K) with K odd, got ", conv);
  check_geometry(conv[3], dilation, stride);
  const int64_t channels = query.size(1);
  check(conv[1] > 0 && channels % conv[1] == 0, "conv_weight has ", conv[1], " channels a group, not a divisor of the ",
        channels, " channels of query");
  check_parameter("conv_weight", parameters.conv_weight, query, {channels, conv[1], conv[2], conv[3]});
  check_parameter("conv_bias", parameters.conv_bias, query, {channels});

  check(heads > 0 && heads <= INT32_MAX, "heads must be from 1 to 2147483647, got ", heads);
  check(product({heads, conv[3], conv[3]}) < INT64_MAX, "heads·K² must fit in 64 bits, got heads = ", heads,
        " and K = ", conv[3]);
  const Neighbourhood neighbourhood{conv[3], effective_dilation(dilation, query.size(2), query.size(3)), 1};
  const Shape shape{query.size(0), channels, query.size(2),      query.size(3), heads,
                    neighbourhood, stride,   channels / conv[1], proj_groups};
  check(proj_groups > 0 && channels % proj_groups == 0 && shape.attn_channels() % proj_groups == 0,
        "proj_groups must divide ", channels, " channels and heads·K² = ", shape.attn_channels(), ", got ",
        proj_groups);
  Sizes proj{shape.attn_channels(), shape.terms()};
  if (parameters.proj_weight.dim() == 4) {
    proj.insert(proj.end(), {1, 1});
  }
  check_parameter("proj_weight", parameters.proj_weight, query, proj);
  check_parameter("proj_bias", parameters.proj_bias, query, {shape.attn_channels()});
  return shape;
}

OptionalTensor in_dtype(const OptionalTensor& tensor, ScalarType dtype) {
  return tensor ? OptionalTensor(torch::stable::contiguous(torch::stable::to(*tensor, dtype))) : std::nullopt;
}

Parameters in_dtype(const Parameters& given, ScalarType dtype) {
  return {*in_dtype(given.conv_weight, dtype), in_dtype(given.conv_bias, dtype), *in_dtype(given.proj_weight, dtype),
          in_dtype(given.proj_bias, dtype)};
}

Tensor forward(const Tensor& query, const Tensor& key, const Tensor& conv_weight, const OptionalTensor& conv_bias,
               const Tensor& proj_weight, const OptionalTensor& proj_bias, int64_t heads, double scale,
               int64_t dilation, int64_t stride, int64_t proj_groups) {
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const Shape shape = checked_shape(query, key, given, heads, dilation, stride, proj_groups);
  const Tensor attn =
      empty_in_format(query, {shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()});
  if (attn.numel() > 0) {
    kernels.forward({shape, scale, query, key, in_dtype(given, kernels.parameter_dtype(query))}, attn);
  }
  return attn;
}

// Room for the gradient of a map, if it is needed. It is zero already where the pooling drops rows or columns.
Tensor map_gradient(const Tensor& map, const Shape& shape, bool needed) {
  if (!needed) {
    return no_gradient(map);
  }
  Tensor gradient = empty_in_format(map, sizes(map));
  if (shape.height % shape.pooling != 0 || shape.width % shape.pooling != 0) {
    torch::stable::zero_(gradient);
  }
  return gradient;
}

// The gradient of a parameter as the caller wants it, from what the device gave; or zeros where there are no pixels.
Tensor finished(const OptionalTensor& parameter, bool needed, const Tensor& gradient, bool has_pixels) {
  if (!needed) {
    return gradient;
  }
  if (!has_pixels) {
    return torch::stable::new_zeros(*parameter, sizes(*parameter));
  }
  const Tensor rounded = torch::stable::to(gradient, parameter->scalar_type());
  return sizes(rounded) == sizes(*parameter) ? rounded : torch::stable::reshape(rounded, sizes(*parameter));
}

using Results = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Results backward(const Tensor& grad, const Tensor& attn, const Tensor& query, const Tensor& key,
                 const Tensor& conv_weight, const OptionalTensor& conv_bias, const Tensor& proj_weight,
                 const OptionalTensor& proj_bias, int64_t heads, double scale, int64_t dilation, int64_t stride,
                 int64_t proj_groups, bool need_query, bool need_key, bool need_conv_weight, bool need_conv_bias,
                 bool need_proj_weight, bool need_proj_bias) {
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const Shape shape = checked_shape(query, key, given, heads, dilation, stride, proj_groups);
  const Sizes out{shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()};
  check_parameter("attn", attn, query, out);
  check_parameter("grad", grad, query, out);

  const Needs needs{need_query,       need_key,
                    need_conv_weight, need_conv_bias && conv_bias,
                    need_proj_weight, need_proj_bias && proj_bias};
  Gradients to{map_gradient(query, shape, needs.query),
               map_gradient(key, shape, needs.key),
               no_gradient(query),
               no_gradient(query),
               no_gradient(query),
               no_gradient(query)};
  const bool has_pixels = grad.numel() > 0;
  if (has_pixels) {
    kernels.backward({shape, scale, query, key, in_dtype(given, kernels.parameter_dtype(query))}, grad, attn, needs,
                     to);
  }
  return {to.query,
          to.key,
          finished(conv_weight, needs.conv_weight, to.conv_weight, has_pixels),
          finished(conv_bias, needs.conv_bias, to.conv_bias, has_pixels),
          finished(proj_weight, needs.proj_weight, to.proj_weight, has_pixels),
          finished(proj_bias, needs.proj_bias, to.proj_bias, has_pixels)};
}

ELSA_OP(hadamard_attention, forward,
        "(Tensor query, Tensor key, Tensor conv_weight, Tensor? conv_bias, Tensor proj_weight, Tensor? proj_bias, *, "
        "int heads, float scale=1.0, int dilation=1, int stride=1, int proj_groups=1) -> Tensor")
ELSA_OP(hadamard_attention_backward, backward,
        "(Tensor grad, Tensor attn, Tensor query, Tensor key, Tensor conv_weight, Tensor? conv_bias, "
        "Tensor proj_weight, Tensor? proj_bias, *, int heads, float scale=1.0, int dilation=1, int stride=1, "
        "int proj_groups=1, bool need_query=True, bool need_key=True, bool need_conv_weight=True, "
        "bool need_conv_bias=True, bool need_proj_weight=True, bool need_proj_bias=True) "
        "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)")

}  // namespace
}  // namespace elsa::hadamard_attention
