// hadamard_attention on the current CUDA stream.
//
// The maps between the steps are in query's dtype, [pixels][channels]; every step computes in the accumulation type.
#include <platform.h>

#include <array>

#include "../../../torch/dispatcher.h"
#include "../../../torch/sums.h"
#include "../kernels.h"
#include "steps.h"

namespace elsa::hadamard_attention {
namespace {

// A map on the output's grid without gaps, and how the kernels see it.
struct DenseMap {
  Tensor tensor;  // [pixels][channels]
  MapView view;

  DenseMap(const Tensor& like, const Shape& shape, int64_t channels)
      : tensor(torch::stable::new_empty(like, {shape.batch * shape.out_height() * shape.out_width(), channels})) {
    const int64_t row = shape.out_width() * channels;
    view = {tensor.data_ptr(),
            kernel_dtype(tensor),
            shape.out_height(),
            shape.out_width(),
            shape.out_height() * row,
            1,
            row,
            channels};
  }
};

// A map [pixels][channels] as a stack [groups][pixels][channels / groups].
Tensor by_group(const Tensor& map, int64_t groups) {
  return torch::stable::transpose(torch::stable::reshape(map, {map.size(0), groups, map.size(1) / groups}), 0, 1);
}

// The 1 × 1 convolution of a map, or its adjoint, into `out`; weight is [outputs][inputs / groups].
void project(const Tensor& in, const Tensor& weight, int64_t groups, bool adjoint, const Tensor& out) {
  const Tensor stack =
      torch::stable::reshape(weight, {groups, weight.size(0) / groups, weight.numel() / weight.size(0)});
  Tensor to = by_group(out, groups);
  multiply(by_group(in, groups), adjoint ? stack : torch::stable::transpose(stack, 1, 2), to);
}

Tensor projection_gradient(const Tensor& grad, const Tensor& hidden, const Tensor& weight, int64_t groups) {
  Tensor gradient =
      torch::stable::new_empty(weight, {groups, weight.size(0) / groups, weight.numel() / weight.size(0)});
  multiply(torch::stable::transpose(by_group(grad, groups), 1, 2), by_group(hidden, groups), gradient);
  return torch::stable::reshape(gradient, sizes(weight));
}

Conv conv_of(const Inputs& in, const DenseMap& hidden) {
  Conv call{};
  call.shape = in.shape, call.scale = in.scale;
  call.query = map_view(in.query), call.key = map_view(in.key), call.hidden = hidden.view;
  call.weight = in.parameters.conv_weight.data_ptr(), call.bias = data(in.parameters.conv_bias);
  return call;
}

ScalarType parameter_dtype(const Tensor& query) { return query.scalar_type(); }

void forward(const Inputs& in, const Tensor& attn) {
  const Shape& shape = in.shape;
  void* const stream = current_stream();
  const DenseMap hidden(in.query, shape, shape.channels), logits(in.query, shape, shape.attn_channels());
  conv(conv_of(in, hidden), ConvStep::forward, stream);
  project(hidden.tensor, in.parameters.proj_weight, shape.proj_groups, false, logits.tensor);
  softmax({shape, logits.view, MapView{}, map_view(attn), data(in.parameters.proj_bias), nullptr, 0}, stream);
}

void backward(const Inputs& in, const Tensor& grad, const Tensor& attn, const Needs& needs, Gradients& to) {
  const Shape& shape = in.shape;
  const Parameters& parameters = in.parameters;
  void* const stream = current_stream();
  const ScalarType accumulation = accumulation_dtype(in.query);
  const DenseMap grad_logits(in.query, shape, shape.attn_channels());
  Softmax softmax_call{shape, map_view(grad), map_view(attn), grad_logits.view, nullptr, nullptr, 0};
  if (needs.proj_bias) softmax_call.chunks = bias_chunks(softmax_call);
  const Tensor partial_bias =
      torch::stable::new_empty(in.query, {softmax_call.chunks, shape.attn_channels()}, accumulation);
  if (softmax_call.chunks > 0) softmax_call.partial_bias = partial_bias.data_ptr();
  softmax(softmax_call, stream);

  // `grad_conv` first is the gradient of GELU's output, then that of its input.
  const DenseMap hidden(in.query, shape, shape.channels), grad_conv(in.query, shape, shape.channels);
  Conv call = conv_of(in, hidden);
  call.grad = grad_conv.view;
  if (needs.maps() || needs.conv()) {
    project(grad_logits.tensor, parameters.proj_weight, shape.proj_groups, true, grad_conv.tensor);
    conv(call, ConvStep::recompute, stream);
  } else if (needs.proj_weight) {
    conv(call, ConvStep::forward, stream);
  }
  if (needs.query) call.grad_query = map_view(to.query);
  if (needs.key) call.grad_key = map_view(to.key);
  if (needs.maps()) conv(call, ConvStep::adjoint, stream);

  if (needs.conv()) {
    const int64_t count = chunks(shape);
    const Tensor weight = torch::stable::new_empty(in.query, {count, parameters.conv_weight.numel()}, accumulation);
    const Tensor bias = torch::stable::new_empty(in.query, {count, shape.channels}, accumulation);
    weight_gradient({call, weight.data_ptr(), bias.data_ptr(), count}, stream);
    if (needs.conv_weight) to.conv_weight = sum_partials(weight, 1, sizes(parameters.conv_weight));
    if (needs.conv_bias) to.conv_bias = sum_partials(bias, 1, {shape.channels});
  }
  if (needs.proj_weight) {
    to.proj_weight = projection_gradient(grad_logits.tensor, hidden.tensor, parameters.proj_weight, shape.proj_groups);
  }
  if (needs.proj_bias && softmax_call.chunks > 0) {
    to.proj_bias = sum_partials(partial_bias, 1, {shape.attn_channels()});
  } else if (needs.proj_bias) {
    const std::array<int64_t, 1> pixels{0};
    to.proj_bias = torch::stable::sum(grad_logits.tensor, pixels, false, accumulation);
  }
}

}  // namespace

const Kernels kernels{parameter_dtype, forward, backward};

}  // namespace elsa::hadamard_attention
