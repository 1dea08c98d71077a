// elsa::hadamard_attention on the CPU, and the schemas of the op and its backward.
//
// All maps between the steps are channels-last and in the accumulation type: 16-bit inputs are rounded once, at the
// end.
#include <algorithm>
#include <utility>

#include "hadamard_attention.h"

namespace elsa {
namespace {

// A map of the chain: channels_last, in the accumulation type.
Tensor empty_map(const Tensor& like, const HadamardShape& shape, int64_t channels) {
  return torch::stable::empty(Sizes{shape.batch, channels, shape.out_height(), shape.out_width()},
                              accumulation_dtype(like), std::nullopt, like.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
}

// Whether `tensor` is laid out like a map of the chain.
bool is_map(const Tensor& tensor) {
  const int64_t column = tensor.size(1), row = tensor.size(3) * column;
  return tensor.scalar_type() == accumulation_dtype(tensor) && tensor.stride(1) == 1 && tensor.stride(3) == column &&
         tensor.stride(2) == row && tensor.stride(0) == tensor.size(2) * row;
}

cpu::GroupedConv conv_of(const HadamardShape& shape, const Tensor& in, const Tensor& out, const Tensor& weight,
                         const OptionalTensor& bias, bool adjoint) {
  return {shape.batch,  shape.channels, shape.kernel_size, shape.dilation, shape.groups,
          map_view(in), map_view(out),  weight.data_ptr(), data(bias),     adjoint};
}

// Blocks of channels that one unit of a convolution works on.
int64_t conv_blocks(const HadamardShape& shape, const Tensor& map) {
  const int64_t width = cpu::hadamard_attention().conv_block_bytes / int64_t(map.element_size());
  return (shape.channels + width - 1) / width;
}

Tensor convolve(const HadamardShape& shape, const Tensor& in, const Tensor& weight, const OptionalTensor& bias,
                bool adjoint) {
  Tensor out = empty_map(in, shape, shape.channels);
  const cpu::GroupedConv op = conv_of(shape, in, out, weight, bias, adjoint);
  const auto kernel = cpu::hadamard_attention().conv;
  parallel(conv_blocks(shape, in) * op.tiles(), op.tile_cost(),
           [&](int64_t first, int64_t last) { kernel(op, first, last); });
  return out;
}

// The gradients of weight and bias.
std::pair<Tensor, Tensor> conv_gradients(const HadamardShape& shape, const Tensor& in, const Tensor& grad,
                                         const Tensor& weight) {
  const int64_t blocks = conv_blocks(shape, in);
  cpu::GroupedConvWeightGradient op{conv_of(shape, in, grad, weight, std::nullopt, false), nullptr, nullptr, 0};
  op.chunks = std::min(op.conv.tiles(), std::max<int64_t>(1, 128 / blocks));
  const Tensor partial_weight = torch::stable::new_empty(in, {op.chunks, weight.numel()});
  const Tensor partial_bias = torch::stable::new_empty(in, {op.chunks, shape.channels});
  op.partial_weight = partial_weight.data_ptr();
  op.partial_bias = partial_bias.data_ptr();
  const auto kernel = cpu::hadamard_attention().conv_weight_gradient;
  parallel(blocks * op.chunks, op.conv.tiles() / op.chunks * op.conv.tile_cost(),
           [&](int64_t first, int64_t last) { kernel(op, first, last); });
  return {sum_partials(partial_weight, 1, sizes(weight)), sum_partials(partial_bias, 1, {shape.channels})};
}

// GELU of x, or grad times its derivative, into `out`, which may be x; all are maps of the chain.
void gelu(const Tensor& x, const OptionalTensor& grad, const Tensor& out) {
  const cpu::Gelu op{kernel_dtype(x), x.numel(), x.data_ptr(), data(grad), out.data_ptr()};
  const auto kernel = cpu::hadamard_attention().gelu;
  parallel(op.units(), op.unit_cost(), [&](int64_t first, int64_t last) { kernel(op, first, last); });
}

cpu::Projection projection_of(const HadamardShape& shape, const Tensor& in, const Tensor& out, const Tensor& weight,
                              const OptionalTensor& bias, bool adjoint) {
  return {kernel_dtype(in),  shape.batch * shape.out_height() * shape.out_width(),
          in.size(1),        out.size(1),
          shape.proj_groups, in.data_ptr(),
          out.data_ptr(),    weight.data_ptr(),
          data(bias),        adjoint};
}

// Into `out`, a map of the chain.
void project(const HadamardShape& shape, const Tensor& in, const Tensor& weight, const OptionalTensor& bias,
             bool adjoint, const Tensor& out) {
  const cpu::Projection op = projection_of(shape, in, out, weight, bias, adjoint);
  const auto kernel = cpu::hadamard_attention().projection;
  parallel(op.units(), op.unit_cost(), [&](int64_t first, int64_t last) { kernel(op, first, last); });
}

std::pair<Tensor, Tensor> projection_gradients(const HadamardShape& shape, const Tensor& in, const Tensor& grad,
                                               const Tensor& weight) {
  cpu::ProjectionWeightGradient op{projection_of(shape, in, grad, weight, std::nullopt, false), nullptr, nullptr, 0};
  op.chunks = std::clamp<int64_t>(op.projection.pixels / 64, 1, 128);
  const Tensor partial_weight = torch::stable::new_empty(in, {op.chunks, weight.numel()});
  const Tensor partial_bias = torch::stable::new_empty(in, {op.chunks, shape.attn_channels()});
  op.partial_weight = partial_weight.data_ptr();
  op.partial_bias = partial_bias.data_ptr();
  const auto kernel = cpu::hadamard_attention().projection_weight_gradient;
  parallel(op.chunks, op.projection.pixels / op.chunks * weight.numel(),
           [&](int64_t first, int64_t last) { kernel(op, first, last); });
  return {sum_partials(partial_weight, 1, sizes(weight)), sum_partials(partial_bias, 1, {shape.attn_channels()})};
}

// Softmax of the logits `in` into `out`; or, where attn is given, the gradient of the logits from attn's, `in`.
void softmax(const HadamardShape& shape, const Tensor& in, const OptionalTensor& attn, const Tensor& out) {
  const cpu::Softmax op{shape, map_view(in), attn ? map_view(*attn) : MapView{}, map_view(out)};
  const auto kernel = cpu::hadamard_attention().softmax;
  parallel(op.units(), op.unit_cost(), [&](int64_t first, int64_t last) { kernel(op, first, last); });
}

Tensor product_of(const Tensor& query, const Tensor& key, const HadamardShape& shape, double scale) {
  Tensor product = empty_map(query, shape, shape.channels);
  const cpu::HadamardProduct op{shape, scale, map_view(query), map_view(key), map_view(product)};
  const auto kernel = cpu::hadamard_attention().product;
  parallel(op.units(), op.unit_cost(), [&](int64_t first, int64_t last) { kernel(op, first, last); });
  return product;
}

void product_backward(const Tensor& query, const Tensor& key, const Tensor& grad, const HadamardShape& shape,
                      double scale, Tensor& grad_query, Tensor& grad_key) {
  const cpu::HadamardProductBackward op{
      shape, scale, map_view(query), map_view(key), map_view(grad), map_view(grad_query), map_view(grad_key)};
  const auto kernel = cpu::hadamard_attention().product_backward;
  parallel(op.units(), op.unit_cost(), [&](int64_t first, int64_t last) { kernel(op, first, last); });
}

Tensor forward(const Tensor& query, const Tensor& key, const Tensor& conv_weight, const OptionalTensor& conv_bias,
               const Tensor& proj_weight, const OptionalTensor& proj_bias, int64_t heads, double scale,
               int64_t dilation, int64_t stride, int64_t proj_groups) {
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const HadamardShape shape =
      checked_shape("hadamard_attention", query, key, given, heads, dilation, stride, proj_groups);
  Tensor out = empty_in_format(query, {shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()});
  if (out.numel() == 0) {
    return out;
  }
  const Parameters parameters = parameters_in(given, accumulation_dtype(query));
  const Tensor product = product_of(query, key, shape, scale);
  const Tensor hidden = convolve(shape, product, parameters.conv_weight, parameters.conv_bias, false);
  gelu(hidden, std::nullopt, hidden);
  const Tensor logits = is_map(out) ? out : empty_map(query, shape, shape.attn_channels());
  project(shape, hidden, parameters.proj_weight, parameters.proj_bias, false, logits);
  softmax(shape, logits, std::nullopt, out);
  return out;
}

HadamardGradients backward(const Tensor& grad, const Tensor& attn, const Tensor& query, const Tensor& key,
                           const Tensor& conv_weight, const OptionalTensor& conv_bias, const Tensor& proj_weight,
                           const OptionalTensor& proj_bias, int64_t heads, double scale, int64_t dilation,
                           int64_t stride, int64_t proj_groups) {
  const char* op = "hadamard_attention_backward";
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const HadamardShape shape = checked_shape(op, query, key, given, heads, dilation, stride, proj_groups);
  check_attn_and_grad(op, shape, query, attn, grad);
  if (grad.numel() == 0) {
    return zero_gradients(query, key, given);
  }

  // Everything between the inputs and attn is computed again: attn is all that the forward keeps.
  const ScalarType dtype = accumulation_dtype(query);
  const Parameters parameters = parameters_in(given, dtype);
  const Tensor product = product_of(query, key, shape, scale);
  const Tensor before_gelu = convolve(shape, product, parameters.conv_weight, parameters.conv_bias, false);
  const Tensor hidden = torch::stable::empty_like(before_gelu);
  gelu(before_gelu, std::nullopt, hidden);

  const Tensor grad_logits = empty_map(query, shape, shape.attn_channels());
  softmax(shape, grad, attn, grad_logits);
  const auto [grad_proj_weight, grad_proj_bias] =
      projection_gradients(shape, hidden, grad_logits, parameters.proj_weight);
  const Tensor grad_hidden = empty_map(query, shape, shape.channels);
  project(shape, grad_logits, parameters.proj_weight, std::nullopt, true, grad_hidden);
  const Tensor& grad_before_gelu = grad_hidden;
  gelu(before_gelu, grad_hidden, grad_before_gelu);
  const auto [grad_conv_weight, grad_conv_bias] =
      conv_gradients(shape, product, grad_before_gelu, parameters.conv_weight);
  const Tensor grad_product = convolve(shape, grad_before_gelu, parameters.conv_weight, std::nullopt, true);

  Tensor grad_query = empty_in_format(query, sizes(query)), grad_key = empty_in_format(key, sizes(key));
  product_backward(query, key, grad_product, shape, scale, grad_query, grad_key);
  const auto finished = [](const Tensor& gradient, const Tensor& parameter) {
    return torch::stable::to(gradient, parameter.scalar_type());
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
  library.impl("hadamard_attention", TORCH_BOX(&forward));
  library.impl("hadamard_attention_backward", TORCH_BOX(&backward));
}

}  // namespace elsa
