// hadamard_attention on the CPU, in parallel.
#include "../../../torch/parallel.h"
#include "../kernels.h"
#include "plan.h"

namespace elsa::hadamard_attention {
namespace {

Plan plan_of(const Inputs& in) {
  return {in.shape, vector_kernels().vector_bytes, kernel_dtype(in.parameters.conv_weight)};
}

Call call_of(const Plan& plan, const Inputs& in, const Tensor& attn, bool backward) {
  return {plan,
          in.scale,
          backward,
          map_view(in.query),
          map_view(in.key),
          map_view(attn),
          in.parameters.conv_weight.data_ptr(),
          data(in.parameters.conv_bias),
          in.parameters.proj_weight.data_ptr(),
          data(in.parameters.proj_bias)};
}

// Pack the weights into a new tensor.
Tensor pack(Call& call, const Tensor& weight) {
  const Tensor packed = torch::stable::new_empty(weight, {call.packed_size()});
  call.packed = packed.data_ptr();
  const int64_t units = call.plan.slices() + call.panels();
  parallel(units, 8 * call.packed_size() / units,
           [&](int64_t first, int64_t last) { vector_kernels().pack(call, first, last); });
  return packed;
}

void forward(const Inputs& in, const Tensor& attn) {
  const Plan plan = plan_of(in);
  Call call = call_of(plan, in, attn, false);
  const Tensor packed = pack(call, in.parameters.conv_weight);
  parallel(plan.tiles(), plan.tile_cost(),
           [&](int64_t first, int64_t last) { vector_kernels().forward(call, first, last); });
}

// Room for the gradient of a parameter, if it is needed.
void* allocate(bool needed, const OptionalTensor& parameter, Tensor& gradient) {
  if (!needed) {
    return nullptr;
  }
  gradient = torch::stable::new_empty(*parameter, sizes(*parameter));
  return gradient.data_ptr();
}

// Room for the gradient of the convolution's output.
Tensor channels_last_map(const Shape& shape, const Tensor& like) {
  return torch::stable::empty(Sizes{shape.batch, shape.channels, shape.out_height(), shape.out_width()},
                              like.scalar_type(), std::nullopt, like.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
}

void backward(const Inputs& in, const Tensor& grad, const Tensor& attn, const Needs& needs, Gradients& to) {
  const Plan plan = plan_of(in);
  const Parameters& parameters = in.parameters;
  Call call = call_of(plan, in, attn, true);
  const Tensor packed = pack(call, parameters.conv_weight);
  const Tensor partial = torch::stable::new_empty(packed, {plan.chunks, plan.partial_size()});
  call.grad = map_view(grad), call.partial = partial.data_ptr();
  if (needs.query) call.grad_query = map_view(to.query);
  if (needs.key) call.grad_key = map_view(to.key);
  call.grad_conv_weight = allocate(needs.conv_weight, parameters.conv_weight, to.conv_weight);
  call.grad_conv_bias = allocate(needs.conv_bias, parameters.conv_bias, to.conv_bias);
  call.grad_proj_weight = allocate(needs.proj_weight, parameters.proj_weight, to.proj_weight);
  call.grad_proj_bias = allocate(needs.proj_bias, parameters.proj_bias, to.proj_bias);
  OptionalTensor grad_conv;
  if (needs.maps()) {
    grad_conv = channels_last_map(in.shape, packed);
    call.grad_conv = map_view(*grad_conv);
  }

  const VectorKernels& kernels = vector_kernels();
  parallel(plan.chunks, plan.tiles() / plan.chunks * plan.tile_cost() * 3,
           [&](int64_t first, int64_t last) { kernels.backward(call, first, last); });
  if (needs.maps()) {
    parallel(plan.tiles(), plan.tile_cost(), [&](int64_t first, int64_t last) { kernels.adjoint(call, first, last); });
  }
  if (needs.conv() || needs.proj()) {
    const int64_t units = plan.slices() + in.shape.attn_channels();
    parallel(units, plan.chunks * plan.partial_size() / units,
             [&](int64_t first, int64_t last) { kernels.sum_partial(call, first, last); });
  }
}

}  // namespace

const Kernels kernels{accumulation_dtype, forward, backward};

}  // namespace elsa::hadamard_attention
