#include "hadamard_attention.h"

#include <algorithm>

namespace elsa {
namespace {

void check_parameter(const char* op, const char* argument, const Tensor& parameter, const Tensor& query,
                     const Sizes& expected) {
  check_like(op, argument, parameter, "query", query);
  check_sizes(op, argument, parameter, expected);
}

}  // namespace

HadamardShape checked_shape(const char* op, const Tensor& query, const Tensor& key, const Parameters& parameters,
                            int64_t heads, int64_t dilation, int64_t stride, int64_t proj_groups) {
  check_dtype(op, "query", query);
  check(query.dim() == 4, op, "query must have 4 dimensions (B, C, H, W), got ", query.dim());
  check(query.size(1) > 0 && query.size(2) > 0 && query.size(3) > 0, op,
        "query must have at least one channel, row and column, got ", sizes(query));
  check_parameter(op, "key", key, query, sizes(query));

  const Sizes conv = sizes(parameters.conv_weight);
  check(conv.size() == 4 && conv[2] == conv[3] && conv[3] % 2 == 1, op,
        "conv_weight must have shape (C, C/groups, K, K) with K odd, got ", conv);
  check_geometry(op, conv[3], dilation, stride);
  const int64_t channels = query.size(1);
  check(conv[1] > 0 && channels % conv[1] == 0, op, "conv_weight has ", conv[1],
        " channels a group, not a divisor of the ", channels, " channels of query");
  check_parameter(op, "conv_weight", parameters.conv_weight, query, {channels, conv[1], conv[2], conv[3]});
  if (parameters.conv_bias) {
    check_parameter(op, "conv_bias", *parameters.conv_bias, query, {channels});
  }

  check(heads > 0 && heads <= INT32_MAX, op, "heads must be from 1 to 2147483647, got ", heads);
  check(product({heads, conv[3], conv[3]}) < INT64_MAX, op, "heads·K² must fit in 64 bits, got heads = ", heads,
        " and K = ", conv[3]);
  HadamardShape shape{query.size(0), channels, query.size(2), query.size(3), heads, conv[3],
                      // Beyond the map's size every dilation is the same: only the centre tap is inside.
                      std::min(dilation, std::max(query.size(2), query.size(3))), stride, channels / conv[1],
                      proj_groups};
  check(proj_groups > 0 && channels % proj_groups == 0 && shape.attn_channels() % proj_groups == 0, op,
        "proj_groups must divide ", channels, " channels and heads·K² = ", shape.attn_channels(), ", got ",
        proj_groups);
  Sizes proj{shape.attn_channels(), channels / proj_groups};
  if (parameters.proj_weight.dim() == 4) {
    proj.insert(proj.end(), {1, 1});
  }
  check_parameter(op, "proj_weight", parameters.proj_weight, query, proj);
  if (parameters.proj_bias) {
    check_parameter(op, "proj_bias", *parameters.proj_bias, query, {shape.attn_channels()});
  }
  return shape;
}

void check_attn_and_grad(const char* op, const HadamardShape& shape, const Tensor& query, const Tensor& attn,
                         const Tensor& grad) {
  const Sizes size{shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()};
  check_parameter(op, "attn", attn, query, size);
  check_parameter(op, "grad", grad, query, size);
}

namespace {

OptionalTensor in_dtype(const OptionalTensor& tensor, ScalarType dtype) {
  return tensor ? OptionalTensor(torch::stable::contiguous(torch::stable::to(*tensor, dtype))) : std::nullopt;
}

}  // namespace

Parameters parameters_in(const Parameters& parameters, ScalarType dtype) {
  return {*in_dtype(parameters.conv_weight, dtype), in_dtype(parameters.conv_bias, dtype),
          *in_dtype(parameters.proj_weight, dtype), in_dtype(parameters.proj_bias, dtype)};
}

const void* data(const OptionalTensor& tensor) { return tensor ? tensor->data_ptr() : nullptr; }

Tensor map_gradient(const Tensor& map, const HadamardShape& shape, bool needed) {
  if (!needed) {
    return no_gradient(map);
  }
  Tensor gradient = empty_in_format(map, sizes(map));
  if (shape.height % shape.stride != 0 || shape.width % shape.stride != 0) {
    torch::stable::zero_(gradient);
  }
  return gradient;
}

HadamardGradients zero_gradients(const Tensor& query, const Tensor& key, const Parameters& parameters,
                                 const HadamardShape& shape, const HadamardNeeds& needs) {
  const auto zeros = [&](const OptionalTensor& tensor, bool needed) {
    return needed ? torch::stable::new_zeros(*tensor, sizes(*tensor)) : no_gradient(query);
  };
  return {map_gradient(query, shape, needs.query),          map_gradient(key, shape, needs.key),
          zeros(parameters.conv_weight, needs.conv_weight), zeros(parameters.conv_bias, needs.conv_bias),
          zeros(parameters.proj_weight, needs.proj_weight), zeros(parameters.proj_bias, needs.proj_bias)};
}

}  // namespace elsa
