// elsa::ghost_head and its backward on any device: checks and allocation around the passes of the device.
#include <tuple>

#include "../../torch/registration.h"
#include "../../torch/sums.h"
#include "../../torch/tensor.h"
#include "kernels.h"

namespace elsa::ghost_head {
namespace {

void check_matrix(const char* argument, const OptionalTensor& matrix, const Tensor& value, int64_t kernel_size) {
  if (!matrix) {
    return;
  }
  const Sizes shared{value.size(1), kernel_size, kernel_size};
  const Sizes per_sample{value.size(0), value.size(1), kernel_size, kernel_size};
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

Shape checked_shape(const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
                    const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride) {
  check_geometry(kernel_size, dilation, stride);
  check_dtype("value", value);
  check(value.dim() == 4, "value must have 4 dimensions (B, C, H, W), got ", value.dim());
  check(value.size(2) > 0 && value.size(3) > 0, "value must have at least one row and one column, got ", sizes(value));
  check_like("attn", attn, "value", value);
  check(attn.dim() == 4, "attn must have 4 dimensions (B, heads·K², H//stride, W//stride), got ", attn.dim());

  const int64_t taps = kernel_size * kernel_size, attn_channels = attn.size(1);
  check(attn_channels > 0 && attn_channels % taps == 0, "attn has ", attn_channels,
        " channels, not a multiple of kernel_size² = ", taps);
  const Neighbourhood neighbourhood{kernel_size, effective_dilation(dilation, value.size(2), value.size(3)), stride};
  const Shape shape{value.size(0), value.size(1), value.size(2), value.size(3), attn_channels / taps, neighbourhood};
  check(shape.channels % shape.heads == 0, "value has ", shape.channels, " channels, not a multiple of the ",
        shape.heads, " heads of attn");
  check_sizes("attn", attn, {shape.batch, attn_channels, shape.out_height(), shape.out_width()});
  check_matrix("ghost_mul", ghost_mul, value, kernel_size);
  check_matrix("ghost_add", ghost_add, value, kernel_size);
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
               const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride) {
  const Shape shape = checked_shape(value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
  const Tensor out = empty_in_format(value, {shape.batch, shape.channels, shape.out_height(), shape.out_width()});
  if (out.numel() > 0) {
    const Matrix mul(ghost_mul), add(ghost_add);
    kernels.gather({shape, map_view(out), map_view(value), map_view(attn), mul.view, add.view, false});
  }
  return out;
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor>;

Gradients backward(const Tensor& grad, const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
                   const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride,
                   bool need_value, bool need_attn, bool need_mul, bool need_add) {
  need_mul = need_mul && ghost_mul;
  need_add = need_add && ghost_add;
  const Shape shape = checked_shape(value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
  check_like("grad", grad, "value", value);
  check_sizes("grad", grad, {shape.batch, shape.channels, shape.out_height(), shape.out_width()});

  Tensor grad_value = need_value ? empty_in_format(value, sizes(value)) : no_gradient(value);
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
    kernels.gather({shape, map_view(grad_value), grad_view, attn_view, mul.view, add.view, true});
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
        "int kernel_size, int dilation=1, int stride=1) -> Tensor")
ELSA_OP(ghost_head_backward, backward,
        "(Tensor grad, Tensor value, Tensor attn, Tensor? ghost_mul=None, Tensor? ghost_add=None, *, "
        "int kernel_size, int dilation=1, int stride=1, bool need_value=True, bool need_attn=True, "
        "bool need_mul=True, bool need_add=True) -> (Tensor, Tensor, Tensor, Tensor)")

}  // namespace
}  // namespace elsa::ghost_head
