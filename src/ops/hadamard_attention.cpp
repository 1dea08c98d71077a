// elsa::hadamard_attention and its backward: schemas, checks, the chain of steps, CPU registration.
//
// The product of query and key is a kernel of ours; the convolutions, GELU and softmax are ATen's, all channels-last and
// in the accumulation type, so that 16-bit inputs are rounded once, at the end.
#include "elsa/hadamard_attention.h"

#include <algorithm>
#include <tuple>

#include "tensor.h"

namespace elsa {
namespace {

struct Parameters {
  Tensor conv_weight;
  OptionalTensor conv_bias;
  Tensor proj_weight;
  OptionalTensor proj_bias;
};

void check_parameter(const char* op, const char* argument, const Tensor& parameter, const Tensor& query,
                     const Sizes& expected) {
  check_like(op, argument, parameter, "query", query);
  check_sizes(op, argument, parameter, expected);
}

HadamardShape checked_shape(const char* op, const Tensor& query, const Tensor& key, const Parameters& parameters,
                            int64_t heads, int64_t dilation, int64_t stride, int64_t proj_groups) {
  check_dtype(op, "query", query);
  check(query.dim() == 4, op, "query must have 4 dimensions (B, C, H, W), got ", query.dim());
  check(query.size(1) > 0 && query.size(2) > 0 && query.size(3) > 0, op,
        "query must have at least one channel, row and column, got ", sizes(query));
  check_parameter(op, "key", key, query, sizes(query));

  const Sizes conv = sizes(parameters.conv_weight);
  check(conv.size() == 4 && conv[2] == conv[3], op, "conv_weight must have shape (C, C/groups, K, K), got ", conv);
  check_geometry(op, conv[3], dilation, stride);
  const int64_t channels = query.size(1);
  check(conv[1] > 0 && channels % conv[1] == 0, op, "conv_weight has ", conv[1],
        " channels a group, not a divisor of the ", channels, " channels of query");
  check_parameter(op, "conv_weight", parameters.conv_weight, query, {channels, conv[1], conv[2], conv[3]});
  if (parameters.conv_bias) {
    check_parameter(op, "conv_bias", *parameters.conv_bias, query, {channels});
  }

  check(heads > 0, op, "heads must be positive, got ", heads);
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

OptionalTensor in_dtype(const OptionalTensor& tensor, ScalarType dtype) {
  return tensor ? OptionalTensor(torch::stable::to(*tensor, dtype)) : std::nullopt;
}

// The parameters in the accumulation type, proj_weight with its 1 × 1.
Parameters accumulating(const Parameters& parameters, const HadamardShape& shape, ScalarType dtype) {
  const Tensor proj_weight = torch::stable::reshape(
      parameters.proj_weight, Sizes{shape.attn_channels(), shape.channels / shape.proj_groups, 1, 1});
  return {torch::stable::to(parameters.conv_weight, dtype), in_dtype(parameters.conv_bias, dtype),
          torch::stable::to(proj_weight, dtype), in_dtype(parameters.proj_bias, dtype)};
}

Tensor empty_channels_last(const Tensor& like, const Sizes& size, ScalarType dtype) {
  return torch::stable::empty(size, dtype, std::nullopt, like.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
}

struct Convolution {
  int64_t padding, dilation, groups;

  Tensor operator()(const Tensor& input, const Tensor& weight, const OptionalTensor& bias) const {
    return call("aten::convolution", "", input, weight, bias, Sizes{1, 1}, Sizes{padding, padding},
                Sizes{dilation, dilation}, false, Sizes{0, 0}, groups);
  }

  // The gradients of input, weight and bias.
  std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad, const Tensor& input, const Tensor& weight) const {
    const std::array<bool, 3> wanted{true, true, true};
    std::array<StableIValue, 11> stack{
        torch::stable::detail::from(grad),
        torch::stable::detail::from(input),
        torch::stable::detail::from(weight),
        torch::stable::detail::from(std::optional(Sizes{weight.size(0)})),
        torch::stable::detail::from(Sizes{1, 1}),
        torch::stable::detail::from(Sizes{padding, padding}),
        torch::stable::detail::from(Sizes{dilation, dilation}),
        torch::stable::detail::from(false),
        torch::stable::detail::from(Sizes{0, 0}),
        torch::stable::detail::from(groups),
        torch::stable::detail::from(torch::headeronly::HeaderOnlyArrayRef<bool>(wanted.data(), wanted.size()))};
    STABLE_TORCH_ERROR_CODE_CHECK(
        torch_call_dispatcher("aten::convolution_backward", "", stack.data(), TORCH_ABI_VERSION));
    return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1]),
            torch::stable::detail::to<Tensor>(stack[2])};
  }
};

Convolution conv_of(const HadamardShape& shape) {
  return {shape.kernel_size / 2 * shape.dilation, shape.dilation, shape.groups};
}
Convolution proj_of(const HadamardShape& shape) { return {0, 1, shape.proj_groups}; }

// A (B, C, H, W) tensor as (B, H, W, heads, K²), a view where it is channels_last.
Tensor by_head(const Tensor& map, const HadamardShape& shape) {
  return torch::stable::reshape(
      call("aten::permute", "", map, Sizes{0, 2, 3, 1}),
      Sizes{shape.batch, shape.out_height(), shape.out_width(), shape.heads, shape.kernel_size * shape.kernel_size});
}
// The reverse.
Tensor as_map(const Tensor& heads, const HadamardShape& shape) {
  const Sizes size{shape.batch, shape.out_height(), shape.out_width(), shape.attn_channels()};
  return call("aten::permute", "", torch::stable::reshape(heads, size), Sizes{0, 3, 1, 2});
}

Tensor product_of(const Tensor& query, const Tensor& key, const HadamardShape& shape, double scale) {
  Tensor product = empty_channels_last(query, {shape.batch, shape.channels, shape.out_height(), shape.out_width()},
                                       accumulation_dtype(query));
  const cpu::HadamardProduct op{shape, scale, map_view(query), map_view(key), map_view(product)};
  const auto kernel = cpu::hadamard_attention().product;
  parallel(op.units(), op.unit_cost(), [&](int64_t first, int64_t last) { kernel(op, first, last); });
  return product;
}

void product_backward(const Tensor& query, const Tensor& key, const Tensor& grad, const HadamardShape& shape,
                      double scale, Tensor& grad_query, Tensor& grad_key) {
  const cpu::HadamardProductBackward op{shape,          scale,
                                        map_view(query), map_view(key),
                                        map_view(grad),  map_view(grad_query),
                                        map_view(grad_key)};
  const auto kernel = cpu::hadamard_attention().product_backward;
  parallel(op.units(), op.unit_cost(), [&](int64_t first, int64_t last) { kernel(op, first, last); });
}

Tensor hadamard_attention_cpu(const Tensor& query, const Tensor& key, const Tensor& conv_weight,
                              const OptionalTensor& conv_bias, const Tensor& proj_weight,
                              const OptionalTensor& proj_bias, int64_t heads, double scale, int64_t dilation,
                              int64_t stride, int64_t proj_groups) {
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const HadamardShape shape =
      checked_shape("hadamard_attention", query, key, given, heads, dilation, stride, proj_groups);
  Tensor out = empty_in_format(query, {shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()});
  if (out.numel() == 0) {
    return out;
  }
  const Parameters parameters = accumulating(given, shape, accumulation_dtype(query));
  const Tensor product = product_of(query, key, shape, scale);
  const Tensor before_gelu = conv_of(shape)(product, parameters.conv_weight, parameters.conv_bias);
  const Tensor hidden = call("aten::gelu", "", before_gelu, std::string("none"));
  const Tensor logits = proj_of(shape)(hidden, parameters.proj_weight, parameters.proj_bias);
  const Tensor attn = call("aten::_softmax", "", by_head(logits, shape), int64_t(-1), false);
  return torch::stable::copy_(out, as_map(attn, shape));
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

Gradients hadamard_attention_backward_cpu(const Tensor& grad, const Tensor& attn, const Tensor& query,
                                          const Tensor& key, const Tensor& conv_weight,
                                          const OptionalTensor& conv_bias, const Tensor& proj_weight,
                                          const OptionalTensor& proj_bias, int64_t heads, double scale,
                                          int64_t dilation, int64_t stride, int64_t proj_groups) {
  const char* op = "hadamard_attention_backward";
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const HadamardShape shape = checked_shape(op, query, key, given, heads, dilation, stride, proj_groups);
  const Sizes attn_size{shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()};
  check_parameter(op, "attn", attn, query, attn_size);
  check_parameter(op, "grad", grad, query, attn_size);

  Tensor grad_query = empty_in_format(query, sizes(query)), grad_key = empty_in_format(key, sizes(key));
  if (grad.numel() == 0) {
    const auto zeros_like = [](const Tensor& tensor) {
      return torch::stable::new_zeros(tensor, sizes(tensor));
    };
    torch::stable::zero_(grad_query);
    torch::stable::zero_(grad_key);
    return {grad_query, grad_key, zeros_like(conv_weight), conv_bias ? zeros_like(*conv_bias) : no_gradient(query),
            zeros_like(proj_weight), proj_bias ? zeros_like(*proj_bias) : no_gradient(query)};
  }

  // Everything between the inputs and attn is computed again: attn is all that the forward keeps.
  const ScalarType dtype = accumulation_dtype(query);
  const Parameters parameters = accumulating(given, shape, dtype);
  const Tensor product = product_of(query, key, shape, scale);
  const Tensor before_gelu = conv_of(shape)(product, parameters.conv_weight, parameters.conv_bias);
  const Tensor hidden = call("aten::gelu", "", before_gelu, std::string("none"));

  const Tensor grad_logits =
      call("aten::_softmax_backward_data", "", by_head(torch::stable::to(grad, dtype), shape),
           by_head(torch::stable::to(attn, dtype), shape), int64_t(-1), dtype);
  const auto [grad_hidden, grad_proj_weight, grad_proj_bias] =
      proj_of(shape).backward(as_map(grad_logits, shape), hidden, parameters.proj_weight);
  const Tensor grad_before_gelu =
      call("aten::gelu_backward", "", grad_hidden, before_gelu, std::string("none"));
  const auto [grad_product, grad_conv_weight, grad_conv_bias] =
      conv_of(shape).backward(grad_before_gelu, product, parameters.conv_weight);

  product_backward(query, key, grad_product, shape, scale, grad_query, grad_key);
  const auto finished = [](const Tensor& gradient, const Tensor& parameter) {
    return torch::stable::contiguous(
        torch::stable::to(torch::stable::reshape(gradient, sizes(parameter)), parameter.scalar_type()));
  };
  return {grad_query,
          grad_key,
          finished(grad_conv_weight, conv_weight),
          conv_bias ? finished(grad_conv_bias, *conv_bias) : no_gradient(query),
          finished(grad_proj_weight, proj_weight),
          proj_bias ? finished(grad_proj_bias, *proj_bias) : no_gradient(query)};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(elsa, library) {
  library.def(
      "hadamard_attention(Tensor query, Tensor key, Tensor conv_weight, Tensor? conv_bias, Tensor proj_weight, "
      "Tensor? proj_bias, *, int heads, float scale=1.0, int dilation=1, int stride=1, int proj_groups=1) -> Tensor");
  library.def(
      "hadamard_attention_backward(Tensor grad, Tensor attn, Tensor query, Tensor key, Tensor conv_weight, "
      "Tensor? conv_bias, Tensor proj_weight, Tensor? proj_bias, *, int heads, float scale=1.0, int dilation=1, "
      "int stride=1, int proj_groups=1) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(elsa, CPU, library) {
  library.impl("hadamard_attention", TORCH_BOX(&hadamard_attention_cpu));
  library.impl("hadamard_attention_backward", TORCH_BOX(&hadamard_attention_backward_cpu));
}

}  // namespace elsa
