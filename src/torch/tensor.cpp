#include "tensor.h"

#include <algorithm>

namespace elsa {
namespace {

std::string name(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Double:
      return "float64";
    case ScalarType::Float:
      return "float32";
    case ScalarType::BFloat16:
      return "bfloat16";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Bool:
      return "bool";
    case ScalarType::ComplexFloat:
      return "complex64";
    case ScalarType::ComplexDouble:
      return "complex128";
    default:
      return torch::headeronly::toString(dtype);
  }
}

std::string show_device(const Tensor& tensor) {
  if (tensor.is_cpu()) {
    return "cpu";
  }
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

}  // namespace

Sizes sizes(const Tensor& tensor) {
  const auto view = tensor.sizes();
  return {view.begin(), view.end()};
}

void check_memory(const char* argument, const Tensor& tensor) {
  check(tensor.defined(), argument, " must be a tensor, got None");
  if (tensor.numel() == 0) {
    return;
  }
  int64_t bytes = 0, needed = tensor.storage_offset() + 1;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(tensor.get(), &bytes));
  bool fits = true;
  for (int64_t k = 0; k < tensor.dim(); ++k) {
    int64_t extent = 0;
    fits = fits && !__builtin_mul_overflow(tensor.size(k) - 1, tensor.stride(k), &extent) &&
           !__builtin_add_overflow(needed, extent, &needed);
  }
  fits = fits && !__builtin_mul_overflow(needed, int64_t(tensor.element_size()), &needed);
  check(fits && needed <= bytes && tensor.data_ptr() != nullptr, argument, " has shape ", sizes(tensor), ", but ",
        bytes, " bytes of memory behind it: they were freed or resized");
}

void check_dtype(const char* argument, const Tensor& tensor) {
  check_memory(argument, tensor);
  const ScalarType dtype = tensor.scalar_type();
  check(dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::BFloat16 ||
            dtype == ScalarType::Half,
        argument, " must be float64, float32, bfloat16 or float16, got ", name(dtype));
}

void check_device(const char* argument, const Tensor& tensor, const char* like_argument, const Tensor& like) {
  check(show_device(tensor) == show_device(like), argument, " must be on ", show_device(like), " as ", like_argument,
        " is, got ", show_device(tensor));
}

void check_like(const char* argument, const Tensor& tensor, const char* like_argument, const Tensor& like) {
  check_memory(argument, tensor);
  check(tensor.scalar_type() == like.scalar_type(), argument, " must be ", name(like.scalar_type()), " as ",
        like_argument, " is, got ", name(tensor.scalar_type()));
  check_device(argument, tensor, like_argument, like);
}

void check_sizes(const char* argument, const Tensor& tensor, const Sizes& expected) {
  check(sizes(tensor) == expected, argument, " must have shape ", expected, ", got ", sizes(tensor));
}

void check_geometry(int64_t kernel_size, int64_t dilation, int64_t stride) {
  check(kernel_size > 0 && kernel_size % 2 == 1 && kernel_size <= INT32_MAX,
        "kernel_size must be odd and from 1 to 2147483647, got ", kernel_size);
  check(dilation > 0, "dilation must be positive, got ", dilation);
  check(stride > 0, "stride must be positive, got ", stride);
}

int64_t effective_dilation(int64_t dilation, int64_t height, int64_t width) {
  return std::min(dilation, std::max(height, width));
}

DType kernel_dtype(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Double:
      return DType::float64;
    case ScalarType::BFloat16:
      return DType::bfloat16;
    case ScalarType::Half:
      return DType::float16;
    default:
      return DType::float32;
  }
}

ScalarType accumulation_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

MapView map_view(const Tensor& tensor) {
  return {tensor.data_ptr(), kernel_dtype(tensor), tensor.size(2),   tensor.size(3),
          tensor.stride(0),  tensor.stride(1),     tensor.stride(2), tensor.stride(3)};
}

const void* data(const OptionalTensor& tensor) { return tensor ? tensor->data_ptr() : nullptr; }

Tensor empty_in_format(const Tensor& like, const Sizes& size) {
  const bool channels_last = !like.is_contiguous() && like.stride(1) == 1;
  return torch::stable::empty(
      size, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
      channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

Tensor no_gradient(const Tensor& like) { return torch::stable::new_empty(like, {0}); }

}  // namespace elsa
