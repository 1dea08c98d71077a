// elsa::hadamard_attention on the CPU, and the schemas of the op and its backward.
#include "hadamard_attention.h"

namespace elsa {
namespace {

cpu::HadamardPlan plan_of(const HadamardShape& shape, ScalarType dtype) {
  return cpu::hadamard_plan(shape, dtype == ScalarType::Double ? DType::float64 : DType::float32);
}

cpu::HadamardCall call_of(const cpu::HadamardPlan& plan, double scale, bool backward, const Tensor& query,
                          const Tensor& key, const Tensor& attn, const Parameters& parameters) {
  return {plan,
          scale,
          backward,
          map_view(query),
          map_view(key),
          map_view(attn),
          parameters.conv_weight.data_ptr(),
          data(parameters.conv_bias),
          parameters.proj_weight.data_ptr(),
          data(parameters.proj_bias)};
}

// Pack the weights into a new tensor.
Tensor pack(cpu::HadamardCall& call, const Tensor& weight) {
  const Tensor packed = torch::stable::new_empty(weight, {call.packed_size()});
  call.packed = packed.data_ptr();
  const auto kernel = cpu::hadamard_attention().pack;
  const int64_t units = call.plan.blocks() + call.panels();
  parallel(units, 8 * call.packed_size() / units, [&](int64_t first, int64_t last) { kernel(call, first, last); });
  return packed;
}

Tensor forward(const Tensor& query, const Tensor& key, const Tensor& conv_weight, const OptionalTensor& conv_bias,
               const Tensor& proj_weight, const OptionalTensor& proj_bias, int64_t heads, double scale,
               int64_t dilation, int64_t stride, int64_t proj_groups) {
  const char* op = "hadamard_attention";
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  return named(op, [&] {
    const HadamardShape shape = checked_shape(op, query, key, given, heads, dilation, stride, proj_groups);
    Tensor out = empty_in_format(query, {shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()});
    if (out.numel() == 0) {
      return out;
    }
    const ScalarType dtype = accumulation_dtype(query);
    const Parameters parameters = parameters_in(given, dtype);
    cpu::HadamardCall call = call_of(plan_of(shape, dtype), scale, false, query, key, out, parameters);
    const Tensor packed = pack(call, parameters.conv_weight);
    const auto kernel = cpu::hadamard_attention().forward;
    parallel(call.plan.tiles(), call.plan.tile_cost(), [&](int64_t first, int64_t last) { kernel(call, first, last); });
    return out;
  });
}

// The gradient of a parameter in the accumulation type, and that in the parameter's own dtype.
struct ParameterGradient {
  const OptionalTensor& parameter;
  Tensor sum;
  void* data;

  ParameterGradient(const OptionalTensor& parameter, const Tensor& query, bool needed)
      : parameter(parameter),
        sum(needed ? torch::stable::new_empty(query, sizes(*parameter), accumulation_dtype(query))
                   : no_gradient(query)),
        data(needed ? sum.data_ptr() : nullptr) {}

  Tensor finished() const { return data != nullptr ? torch::stable::to(sum, parameter->scalar_type()) : sum; }
};

HadamardGradients backward(const Tensor& grad, const Tensor& attn, const Tensor& query, const Tensor& key,
                           const Tensor& conv_weight, const OptionalTensor& conv_bias, const Tensor& proj_weight,
                           const OptionalTensor& proj_bias, int64_t heads, double scale, int64_t dilation,
                           int64_t stride, int64_t proj_groups, bool need_query, bool need_key, bool need_conv_weight,
                           bool need_conv_bias, bool need_proj_weight, bool need_proj_bias) {
  const char* op = "hadamard_attention_backward";
  const Parameters given{conv_weight, conv_bias, proj_weight, proj_bias};
  const HadamardNeeds needs(given, need_query, need_key, need_conv_weight, need_conv_bias, need_proj_weight,
                            need_proj_bias);
  return named(op, [&] {
    const HadamardShape shape = checked_shape(op, query, key, given, heads, dilation, stride, proj_groups);
    check_attn_and_grad(op, shape, query, attn, grad);
    if (grad.numel() == 0) {
      return zero_gradients(query, key, given, shape, needs);
    }

    const ScalarType dtype = accumulation_dtype(query);
    const Parameters parameters = parameters_in(given, dtype);
    const cpu::HadamardPlan plan = plan_of(shape, dtype);
    cpu::HadamardCall call = call_of(plan, scale, true, query, key, attn, parameters);
    const Tensor packed = pack(call, parameters.conv_weight);

    const Tensor grad_query = map_gradient(query, shape, needs.query), grad_key = map_gradient(key, shape, needs.key);
    if (needs.query) call.grad_query = map_view(grad_query);
    if (needs.key) call.grad_key = map_view(grad_key);
    Tensor grad_conv = no_gradient(packed);
    if (needs.maps()) {
      grad_conv = torch::stable::empty(Sizes{shape.batch, shape.channels, shape.out_height(), shape.out_width()}, dtype,
                                       std::nullopt, query.device(), std::nullopt,
                                       torch::headeronly::MemoryFormat::ChannelsLast);
      call.grad_conv = map_view(grad_conv);
    }
    const OptionalTensor conv(conv_weight), proj(proj_weight);
    const ParameterGradient grad_conv_weight(conv, query, needs.conv_weight),
        grad_conv_bias(conv_bias, query, needs.conv_bias), grad_proj_weight(proj, query, needs.proj_weight),
        grad_proj_bias(proj_bias, query, needs.proj_bias);
    call.grad_conv_weight = grad_conv_weight.data, call.grad_conv_bias = grad_conv_bias.data;
    call.grad_proj_weight = grad_proj_weight.data, call.grad_proj_bias = grad_proj_bias.data;

    const Tensor partial = torch::stable::new_empty(packed, {plan.chunks, plan.partial_size()});
    call.grad = map_view(grad), call.partial = partial.data_ptr();
    const cpu::HadamardKernels& kernels = cpu::hadamard_attention();
    parallel(plan.chunks, plan.tiles() / plan.chunks * plan.tile_cost() * 3,
             [&](int64_t first, int64_t last) { kernels.backward(call, first, last); });
    if (needs.maps()) {
      parallel(plan.tiles(), plan.tile_cost(),
               [&](int64_t first, int64_t last) { kernels.adjoint(call, first, last); });
    }
    if (needs.conv() || needs.proj()) {
      const int64_t units = plan.blocks() + shape.attn_channels();
      parallel(units, plan.chunks * plan.partial_size() / units,
               [&](int64_t first, int64_t last) { kernels.sum_partial(call, first, last); });
    }
    return HadamardGradients{grad_query,
                             grad_key,
                             grad_conv_weight.finished(),
                             grad_conv_bias.finished(),
                             grad_proj_weight.finished(),
                             grad_proj_bias.finished()};
  });
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(elsa, library) {
  library.def(
      "hadamard_attention(Tensor query, Tensor key, Tensor conv_weight, Tensor? conv_bias, Tensor proj_weight, "
      "Tensor? proj_bias, *, int heads, float scale=1.0, int dilation=1, int stride=1, int proj_groups=1) -> Tensor");
  library.def(
      "hadamard_attention_backward(Tensor grad, Tensor attn, Tensor query, Tensor key, Tensor conv_weight, "
      "Tensor? conv_bias, Tensor proj_weight, Tensor? proj_bias, *, int heads, float scale=1.0, int dilation=1, "
      "int stride=1, int proj_groups=1, bool need_query=True, bool need_key=True, bool need_conv_weight=True, "
      "bool need_conv_bias=True, bool need_proj_weight=True, bool need_proj_bias=True) "
      "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(elsa, CPU, library) {
  library.impl("hadamard_attention", TORCH_BOX(&forward));
  library.impl("hadamard_attention_backward", TORCH_BOX(&backward));
}

}  // namespace elsa
