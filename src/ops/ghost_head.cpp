#include "ghost_head.h"

#include <algorithm>

namespace elsa {
namespace {

void check_matrix(const char* op, const char* argument, const OptionalTensor& matrix, const Tensor& value,
                  int64_t kernel_size) {
  if (!matrix) {
    return;
  }
  const Sizes shared{value.size(1), kernel_size, kernel_size};
  const Sizes per_sample{value.size(0), value.size(1), kernel_size, kernel_size};
  check(sizes(*matrix) == shared || sizes(*matrix) == per_sample, op, argument, " must have shape (C, K, K) = ", shared,
        " or (B, C, K, K) = ", per_sample, ", got ", sizes(*matrix));
  const bool float32_beside_16_bit = matrix->scalar_type() == ScalarType::Float && value.element_size() == 2;
  if (float32_beside_16_bit) {
    check_memory(op, argument, *matrix);
  } else {
    check_like(op, argument, *matrix, "value", value);
  }
  check(show_device(*matrix) == show_device(value), op, argument, " must be on ", show_device(value),
        " as value is, got ", show_device(*matrix));
}

GhostHeadShape checked_shape(const char* op, const Tensor& value, const Tensor& attn, const OptionalTensor& ghost_mul,
                             const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation, int64_t stride) {
  check_geometry(op, kernel_size, dilation, stride);
  check_dtype(op, "value", value);
  check(value.dim() == 4, op, "value must have 4 dimensions (B, C, H, W), got ", value.dim());
  check(value.size(2) > 0 && value.size(3) > 0, op, "value must have at least one row and one column, got ",
        sizes(value));
  check_like(op, "attn", attn, "value", value);
  check(attn.dim() == 4, op, "attn must have 4 dimensions (B, heads·K², H//stride, W//stride), got ", attn.dim());

  const int64_t taps = kernel_size * kernel_size, attn_channels = attn.size(1);
  check(attn_channels > 0 && attn_channels % taps == 0, op, "attn has ", attn_channels,
        " channels, not a multiple of kernel_size² = ", taps);
  GhostHeadShape shape{value.size(0), value.size(1), value.size(2), value.size(3), attn_channels / taps, kernel_size,
                       // Beyond the map's size every dilation is the same: only the centre tap is inside.
                       std::min(dilation, std::max(value.size(2), value.size(3))), stride};
  check(shape.channels % shape.heads == 0, op, "value has ", shape.channels, " channels, not a multiple of the ",
        shape.heads, " heads of attn");
  check_sizes(op, "attn", attn, {shape.batch, attn_channels, shape.out_height(), shape.out_width()});
  check_matrix(op, "ghost_mul", ghost_mul, value, kernel_size);
  check_matrix(op, "ghost_add", ghost_add, value, kernel_size);
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

}  // namespace

Tensor ghost_head(const GhostHeadPasses& passes, const Tensor& value, const Tensor& attn,
                  const OptionalTensor& ghost_mul, const OptionalTensor& ghost_add, int64_t kernel_size,
                  int64_t dilation, int64_t stride) {
  const char* op = "ghost_head";
  return named(op, [&] {
    const GhostHeadShape shape = checked_shape(op, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
    Tensor out = empty_in_format(value, {shape.batch, shape.channels, shape.out_height(), shape.out_width()});
    if (out.numel() > 0) {
      const Matrix mul(ghost_mul), add(ghost_add);
      passes.gather({shape, map_view(out), map_view(value), map_view(attn), mul.view, add.view, false});
    }
    return out;
  });
}

namespace {

// Room for the partial sums of a matrix's gradient, and their sum in the matrix's shape and dtype.
struct MatrixGradient {
  OptionalTensor partial;
  void* data = nullptr;

  MatrixGradient(bool needed, const Tensor& value, const GhostHeadShape& shape, int64_t samples, int64_t chunks) {
    if (needed) {
      partial =
          torch::stable::new_empty(value, {samples, chunks, shape.channels, shape.taps()}, accumulation_dtype(value));
      data = partial->data_ptr();
    }
  }

  Tensor sum(const GhostHeadPasses& passes, const Tensor& matrix) const {
    const int64_t groups = matrix.dim() == 4 ? matrix.size(0) : 1;
    return torch::stable::to(passes.sum_partials(*partial, groups, sizes(matrix)), matrix.scalar_type());
  }
};

}  // namespace

GhostHeadGradients ghost_head_backward(const GhostHeadPasses& passes, const Tensor& grad, const Tensor& value,
                                       const Tensor& attn, const OptionalTensor& ghost_mul,
                                       const OptionalTensor& ghost_add, int64_t kernel_size, int64_t dilation,
                                       int64_t stride, bool need_value, bool need_attn, bool need_mul, bool need_add) {
  const char* op = "ghost_head_backward";
  need_mul = need_mul && ghost_mul;
  need_add = need_add && ghost_add;
  return named(op, [&] {
    const GhostHeadShape shape = checked_shape(op, value, attn, ghost_mul, ghost_add, kernel_size, dilation, stride);
    check_like(op, "grad", grad, "value", value);
    check_sizes(op, "grad", grad, {shape.batch, shape.channels, shape.out_height(), shape.out_width()});

    Tensor grad_value = need_value ? empty_in_format(value, sizes(value)) : no_gradient(value);
    Tensor grad_attn = need_attn ? empty_in_format(attn, sizes(attn)) : no_gradient(attn);
    Tensor grad_mul = need_mul ? torch::stable::new_empty(*ghost_mul, sizes(*ghost_mul)) : no_gradient(value);
    Tensor grad_add = need_add ? torch::stable::new_empty(*ghost_add, sizes(*ghost_add)) : no_gradient(value);
    if (grad.numel() == 0) {
      for (Tensor* tensor : {&grad_value, &grad_attn, &grad_mul, &grad_add}) {
        torch::stable::zero_(*tensor);
      }
      return GhostHeadGradients{grad_value, grad_attn, grad_mul, grad_add};
    }

    const Matrix mul(ghost_mul), add(ghost_add);
    const MapView value_view = map_view(value), attn_view = map_view(attn), grad_view = map_view(grad);
    if (need_value) {
      passes.gather({shape, map_view(grad_value), grad_view, attn_view, mul.view, add.view, true});
    }
    if (need_attn || need_mul || need_add) {
      GhostHeadReduce reduce{};
      reduce.shape = shape;
      reduce.value = value_view, reduce.attn = attn_view, reduce.grad = grad_view, reduce.mul = mul.view;
      if (need_attn) reduce.grad_attn = map_view(grad_attn);
      reduce.samples = mul.view.batch_stride != 0 || add.view.batch_stride != 0 ? shape.batch : 1;
      reduce.chunks = passes.chunks(reduce);
      const MatrixGradient sum_mul(need_mul, value, shape, reduce.samples, reduce.chunks);
      const MatrixGradient sum_add(need_add, value, shape, reduce.samples, reduce.chunks);
      reduce.partial_mul = sum_mul.data;
      reduce.partial_add = sum_add.data;
      passes.reduce(reduce);
      if (need_mul) grad_mul = sum_mul.sum(passes, *ghost_mul);
      if (need_add) grad_add = sum_add.sum(passes, *ghost_add);
    }
    return GhostHeadGradients{grad_value, grad_attn, grad_mul, grad_add};
  });
}

}  // namespace elsa
