// elsa::hadamard_attention on CUDA devices.
//
// The maps between the steps are in query's dtype, [pixels][channels]; every step computes in the accumulation type.
#include <cuda_device.h>

#include <algorithm>

#include "cuda_ops.h"
#include "hadamard_attention.h"

namespace elsa::cuda_ops {
namespace {

// A map on the output's grid without gaps, and how the kernels see it.
struct DenseMap {
  Tensor tensor;  // [pixels][channels]
  MapView view;

  DenseMap(const Tensor& like, const HadamardShape& shape, int64_t channels)
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

// The product of two stacks of matrices, into `out`. Autocast leaves this overload alone.
void multiply(const Tensor& left, const Tensor& right, Tensor& out) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(left), torch::stable::detail::from(right),
                                    torch::stable::detail::from(out)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
}

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

cuda::HadamardConv conv_of(const HadamardShape& shape, double scale, const Tensor& query, const Tensor& key,
                           const Parameters& parameters, const DenseMap& hidden) {
  cuda::HadamardConv op{};
  op.shape = shape, op.scale = scale;
  op.query = map_view(query), op.key = map_view(key), op.hidden = hidden.view;
  op.weight = parameters.conv_weight.data_ptr(), op.bias = data(parameters.conv_bias);
  return op;
}

}  // namespace

Tensor hadamard_attention(const Tensor& query, const Tensor& key, const Tensor& conv_weight,
                          const OptionalTensor& conv_bias, const Tensor& proj_weight, const OptionalTensor& proj_bias,
                          int64_t heads, double scale, int64_t dilation, int64_t stride, int64_t proj_groups) {
  const char* op = "hadamard_attention";
  const OnDeviceOf guard(query);
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  return named(op, [&] {
    const HadamardShape shape = checked_shape(op, query, key, given, heads, dilation, stride, proj_groups);
    Tensor out = empty_in_format(query, {shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()});
    if (out.numel() == 0) {
      return out;
    }
    void* const stream = current_stream();
    const Parameters parameters = parameters_in(given, query.scalar_type());
    const DenseMap hidden(query, shape, shape.channels), logits(query, shape, shape.attn_channels());
    cuda::hadamard_conv(conv_of(shape, scale, query, key, parameters, hidden), cuda::ConvStep::forward, stream);
    project(hidden.tensor, parameters.proj_weight, proj_groups, false, logits.tensor);
    cuda::hadamard_softmax({shape, logits.view, MapView{}, map_view(out), data(parameters.proj_bias)}, stream);
    return out;
  });
}

HadamardGradients hadamard_attention_backward(const Tensor& grad, const Tensor& attn, const Tensor& query,
                                              const Tensor& key, const Tensor& conv_weight,
                                              const OptionalTensor& conv_bias, const Tensor& proj_weight,
                                              const OptionalTensor& proj_bias, int64_t heads, double scale,
                                              int64_t dilation, int64_t stride, int64_t proj_groups, bool need_query,
                                              bool need_key, bool need_conv_weight, bool need_conv_bias,
                                              bool need_proj_weight, bool need_proj_bias) {
  const char* name = "hadamard_attention_backward";
  const OnDeviceOf guard(query);
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const HadamardNeeds needs(given, need_query, need_key, need_conv_weight, need_conv_bias, need_proj_weight,
                            need_proj_bias);
  return named(name, [&] {
    const HadamardShape shape = checked_shape(name, query, key, given, heads, dilation, stride, proj_groups);
    check_attn_and_grad(name, shape, query, attn, grad);
    if (grad.numel() == 0) {
      return zero_gradients(query, key, given, shape, needs);
    }
    void* const stream = current_stream();
    const Parameters parameters = parameters_in(given, query.scalar_type());
    const DenseMap grad_logits(query, shape, shape.attn_channels());
    cuda::hadamard_softmax({shape, map_view(grad), map_view(attn), grad_logits.view, nullptr}, stream);

    // `grad_conv` first is the gradient of GELU's output, then that of its input.
    const DenseMap hidden(query, shape, shape.channels), grad_conv(query, shape, shape.channels);
    cuda::HadamardConv op = conv_of(shape, scale, query, key, parameters, hidden);
    op.grad = grad_conv.view;
    if (needs.maps() || needs.conv()) {
      project(grad_logits.tensor, parameters.proj_weight, proj_groups, true, grad_conv.tensor);
      cuda::hadamard_conv(op, cuda::ConvStep::recompute, stream);
    } else if (needs.proj_weight) {
      cuda::hadamard_conv(op, cuda::ConvStep::forward, stream);
    }

    const Tensor grad_query = map_gradient(query, shape, needs.query), grad_key = map_gradient(key, shape, needs.key);
    if (needs.query) op.grad_query = map_view(grad_query);
    if (needs.key) op.grad_key = map_view(grad_key);
    if (needs.maps()) cuda::hadamard_conv(op, cuda::ConvStep::adjoint, stream);

    Tensor grad_conv_weight = no_gradient(query), grad_conv_bias = no_gradient(query);
    const ScalarType accumulation = accumulation_dtype(query);
    if (needs.conv()) {
      const int64_t chunks = cuda::hadamard_chunks(op);
      const Tensor partial_weight = torch::stable::new_empty(query, {chunks, conv_weight.numel()}, accumulation);
      const Tensor partial_bias = torch::stable::new_empty(query, {chunks, shape.channels}, accumulation);
      cuda::hadamard_weight_gradient({op, partial_weight.data_ptr(), partial_bias.data_ptr(), chunks}, stream);
      const auto summed = [&](const Tensor& partial, const Tensor& parameter) {
        return torch::stable::to(sum_partials_by_torch(partial, 1, sizes(parameter)), parameter.scalar_type());
      };
      if (needs.conv_weight) grad_conv_weight = summed(partial_weight, conv_weight);
      if (needs.conv_bias) grad_conv_bias = summed(partial_bias, *conv_bias);
    }
    Tensor grad_proj_weight = no_gradient(query), grad_proj_bias = no_gradient(query);
    if (needs.proj_weight) {
      grad_proj_weight = torch::stable::reshape(
          projection_gradient(grad_logits.tensor, hidden.tensor, parameters.proj_weight, proj_groups),
          sizes(proj_weight));
    }
    if (needs.proj_bias) {
      const std::array<int64_t, 1> pixels{0};
      grad_proj_bias = torch::stable::to(torch::stable::sum(grad_logits.tensor, pixels, false, accumulation),
                                         proj_bias->scalar_type());
    }
    return HadamardGradients{grad_query, grad_key, grad_conv_weight, grad_conv_bias, grad_proj_weight, grad_proj_bias};
  });
}

}  // namespace elsa::cuda_ops
