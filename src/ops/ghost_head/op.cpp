// elsa::ghost_head and its backward on any device: checks and allocation around the passes of the device.
#include <tuple>

#include "../../torch/local_attention.h"
#include "../../torch/registration.h"
#include "kernels.h"

namespace elsa::ghost_head {
namespace {

void check_matrix(const char* argument, const OptionalTensor& matrix, const Tensor& value, const Shape& shape) {
  if (!matrix) {
    return;
  }
  const Sizes shared{shape.channels, shape.y.kernel_size, shape.x.kernel_size};
  const Sizes per_sample{shape.batch, shape.channels, shape.y.kernel_size, shape.x.kernel_size};
  check(sizes(*matrix) == shared || sizes(*matrix) == per_sample, argument, " must have shape (C, K, K) = ", shared,
        " or (B, C, K, K) = ", per_sample, ", got ", sizes(*matrix));
  const bool float32_beside_16_bit = matrix->scalar_type() == ScalarType::Float && value.element_size() == 2;
  if (float32_beside_16_bit) {
    check_memory(argument, *matrix);
    check_device(argument, *matrix, "value", value);
  } else {
    check_like(argument, *matrix, "value", value);
  }
}

struct Options {
  NeighbourhoodOptions around;
  const Sizes& stride;
};

Neighbourhood checked_axis_with_stride(const Options& options, int axis, int64_t length) {
  Neighbourhood neighbourhood = checked_axis(options.around, axis, length);
  neighbourhood.stride = of_axis("stride", options.stride, axis);
  check(neighbourhood.stride > 0, "stride must be positive, got ", options.stride);
  return neighbourhood;
}

Shape checked_shape(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
                    const OptionalTensor& ghost_add, const Options& options) {
  check_dtype("value", value);
  check(value.dim() == 4, "value must have 4 dimensions (B, C, H, W), got ", value.dim());
  check(value.size(2) > 0 && value.size(3) > 0, "value must have at least one row and one column, got ", sizes(value));
  check_like("attn", attn, "value", value);
  check(attn.dim() == 4, "attn must have 4 dimensions (B, heads·K², H//stride, W//stride), got ", attn.dim());

  Shape shape{};
  shape.batch = value.size(0), shape.channels = value.size(1);
  shape.height = value.size(2), shape.width = value.size(3);
  shape.y = checked_axis_with_stride(options, 0, shape.height);
  shape.x = checked_axis_with_stride(options, 1, shape.width);
  shape = completed(shape);
  const int64_t taps = shape.taps(), attn_channels = attn.size(1);
  check(attn_channels > 0 && attn_channels % taps == 0, "attn has ", attn_channels, " channels, not a multiple of ",
        shape.y.kernel_size == shape.x.kernel_size ? "kernel_size² = " : "the product of kernel_size, ", taps);
  shape.heads = attn_channels / taps;
  check(shape.channels % shape.heads == 0, "value has ", shape.channels, " channels, not a multiple of the ",
        shape.heads, " heads of attn");
  check_sizes("attn", attn, {shape.batch, attn_channels, shape.out_height(), shape.out_width()});
  check_matrix("ghost_mul", ghost_mul, value, shape);
  check_matrix("ghost_add", ghost_add, value, shape);
  return shape;
}

// A contiguous matrix and the view that the kernels read; the tensor keeps the view's memory alive.
struct Matrix {
  OptionalTensor tensor;
  MatrixView view{nullptr, DType::float32, 0};

  explicit Matrix(const OptionalTensor& matrix) {
    if (matrix) {
      tensor = torch::stable::contiguous(*matrix);
      view = {tensor->data_ptr(), kernel_dtype(*tensor), matrix->dim() == 4 ? tensor->stride(0) : 0};
    }
  }
};

// Room for the partial sums of a matrix's gradient, and their sum in the matrix's shape and dtype.
struct MatrixGradient {
  OptionalTensor partial;
  void* data = nullptr;

  MatrixGradient(bool needed, const Tensor& value, const Reduce& pass) {
    if (needed) {
      const Sizes size{pass.sums, pass.chunks, pass.shape.channels, pass.shape.taps()};
      partial = torch::stable::new_empty(value, size, accumulation_dtype(value));
      data = partial->data_ptr();
    }
  }

  Tensor sum(const Tensor& matrix) const {
    const int64_t sums = matrix.dim() == 4 ? matrix.size(0) : 1;
    return torch::stable::to(sum_partials(*partial, sums, sizes(matrix)), matrix.scalar_type());
  }
};

Tensor forward(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
               const OptionalTensor& ghost_add, const Sizes& kernel_size, const Sizes& dilation, const Sizes& stride,
               const std::string& border, const Sizes& window_stride, const Sizes& causal) {
  const Options options{{kernel_size, dilation, border, window_stride, causal}, stride};
  const Shape shape = checked_shape(value, attn, ghost_mul, ghost_add, options);
  const Tensor out = empty_in_format(value, {shape.batch, shape.channels, shape.out_height(), shape.out_width()});
  if (out.numel() > 0) {
    const Matrix mul(ghost_mul), add(ghost_add);
    kernels.gather({shape, map_view(out), map_view(value), map_view(attn), mul.view, add.view, false});
  }
  return out;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Gradients backward(const Tensor& grad, const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
                   const OptionalTensor& ghost_add, const Sizes& kernel_size, const Sizes& dilation,
                   const Sizes& stride, const std::string& border, const Sizes& window_stride, const Sizes& causal,
                   bool need_value, bool need_attn, bool need_mul, bool need_add) {
  const Options options{{kernel_size, dilation, border, window_stride, causal}, stride};
  need_mul = need_mul && ghost_mul;
  need_add = need_add && ghost_add;
  const Shape shape = checked_shape(value, attn, ghost_mul, ghost_add, options);
  check_like("grad", grad, "value", value);
  check_sizes("grad", grad, {shape.batch, shape.channels, shape.out_height(), shape.out_width()});

  const bool adds = need_value && !shape.square && grad.numel() > 0;
  const MapGradient sum_value(adds, value);
  Tensor grad_value = need_value && !adds ? empty_in_format(value, sizes(value)) : no_gradient(value);
  Tensor grad_attn = need_attn ? empty_in_format(attn, sizes(attn)) : no_gradient(attn);
  Tensor grad_mul = need_mul ? torch::stable::new_empty(*ghost_mul, sizes(*ghost_mul)) : no_gradient(value);
  Tensor grad_add = need_add ? torch::stable::new_empty(*ghost_add, sizes(*ghost_add)) : no_gradient(value);
  if (grad.numel() == 0) {
    for (Tensor* tensor : {&grad_value, &grad_attn, &grad_mul, &grad_add}) {
      torch::stable::zero_(*tensor);
    }
    return {grad_value, grad_attn, grad_mul, grad_add};
  }

  const Matrix mul(ghost_mul), add(ghost_add);
  const MapView value_view = map_view(value), attn_view = map_view(attn), grad_view = map_view(grad);
  if (need_value) {
    const MapView out = adds ? sum_value.view() : map_view(grad_value);
    kernels.gather({shape, out, grad_view, attn_view, mul.view, add.view, true});
    if (adds) grad_value = sum_value.finish();
  }
  if (need_attn || need_mul || need_add) {
    Reduce pass{};
    pass.shape = shape;
    pass.value = value_view, pass.attn = attn_view, pass.grad = grad_view, pass.mul = mul.view;
    if (need_attn) pass.grad_attn = map_view(grad_attn);
    pass.sums = mul.view.batch_stride != 0 || add.view.batch_stride != 0 ? shape.batch : 1;
    pass.chunks = kernels.chunks(shape, pass.sums);
    const MatrixGradient sum_mul(need_mul, value, pass), sum_add(need_add, value, pass);
    pass.partial_mul = sum_mul.data;
    pass.partial_add = sum_add.data;
    kernels.reduce(pass);
    if (need_mul) grad_mul = sum_mul.sum(*ghost_mul);
    if (need_add) grad_add = sum_add.sum(*ghost_add);
  }
  return {grad_value, grad_attn, grad_mul, grad_add};
}

ELSA_OP(ghost_head, forward,
        "(Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
        "int[2] kernel_size, int[2] dilation=1, int[2] stride=1, str border=\"zeros\", int[2] window_stride=1, "
        "int[2] causal=0) -> Tensor")
ELSA_OP(ghost_head_backward, backward,
        "(Tensor grad, Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
        "int[2] kernel_size, int[2] dilation=1, int[2] stride=1, str border=\"zeros\", int[2] window_stride=1, "
        "int[2] causal=0, bool need_value=True, bool need_attn=True, bool need_mul=True, bool need_add=True) "
        "-> (Tensor, Tensor, Tensor, Tensor)")

}  // namespace
}  // namespace elsa::ghost_head
