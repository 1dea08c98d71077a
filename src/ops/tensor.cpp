#include "tensor.h"

#include <algorithm>
#include <new>

namespace elsa {

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

std::ostream& operator<<(std::ostream& out, const Sizes& sizes) {
  out << '(';
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    out << (i == 0 ? "" : ", ") << sizes[i];
  }
  return out << (sizes.size() == 1 ? ",)" : ")");
}

std::string show_device(const Tensor& tensor) {
  if (tensor.is_cpu()) {
    return "cpu";
  }
  return (tensor.is_cuda() ? "cuda:" : "device ") + std::to_string(tensor.get_device_index());
}

Sizes sizes(const Tensor& tensor) {
  const auto view = tensor.sizes();
  return {view.begin(), view.end()};
}

std::string cause(const std::exception& error) {
  const std::string message = error.what();
  // PyTorch's parallel loop passes on what it says, and not its type.
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr || message.starts_with("std::bad_alloc")) {
    return "out of memory";
  }
  // PyTorch puts its own message before this, or from 2.10 to 2.12 on stderr alone.
  const std::size_t end = message.find(" (originally from ");
  if (end == std::string::npos && message.find(" API call failed at ") != std::string::npos) {
    return "out of memory, or a failure inside PyTorch that it reports on stderr";
  }
  return message.substr(0, end);
}

int64_t product(std::initializer_list<int64_t> factors) {
  int64_t result = 1;
  bool fits = true;
  for (const int64_t factor : factors) {
    if (factor == 0) return 0;
    fits = fits && !__builtin_mul_overflow(result, factor, &result);
  }
  return fits ? result : INT64_MAX;
}

void check_memory(const char* op, const char* argument, const Tensor& tensor) {
  check(tensor.defined(), op, argument, " must be a tensor, got None");
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
  check(fits && needed <= bytes && tensor.data_ptr() != nullptr, op, argument, " has shape ", sizes(tensor), ", but ",
        bytes, " bytes of memory behind it: they were freed or resized");
}

void check_dtype(const char* op, const char* argument, const Tensor& tensor) {
  check_memory(op, argument, tensor);
  const ScalarType dtype = tensor.scalar_type();
  check(dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::BFloat16 ||
            dtype == ScalarType::Half,
        op, argument, " must be float64, float32, bfloat16 or float16, got ", name(dtype));
}

void check_like(const char* op, const char* argument, const Tensor& tensor, const char* like_argument,
                const Tensor& like) {
  check_memory(op, argument, tensor);
  check(tensor.scalar_type() == like.scalar_type(), op, argument, " must be ", name(like.scalar_type()), " as ",
        like_argument, " is, got ", name(tensor.scalar_type()));
  check(show_device(tensor) == show_device(like), op, argument, " must be on ", show_device(like), " as ",
        like_argument, " is, got ", show_device(tensor));
}

void check_sizes(const char* op, const char* argument, const Tensor& tensor, const Sizes& expected) {
  check(sizes(tensor) == expected, op, argument, " must have shape ", expected, ", got ", sizes(tensor));
}

void check_geometry(const char* op, int64_t kernel_size, int64_t dilation, int64_t stride) {
  check(kernel_size > 0 && kernel_size % 2 == 1 && kernel_size <= INT32_MAX, op,
        "kernel_size must be odd and from 1 to 2147483647, got ", kernel_size);
  check(dilation > 0, op, "dilation must be positive, got ", dilation);
  check(stride > 0, op, "stride must be positive, got ", stride);
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

Tensor empty_in_format(const Tensor& like, const Sizes& size) {
  const bool channels_last = !like.is_contiguous() && like.stride(1) == 1;
  return torch::stable::empty(
      size, like.scalar_type(), std::nullopt, like.device(), std::nullopt,
      channels_last ? torch::headeronly::MemoryFormat::ChannelsLast : torch::headeronly::MemoryFormat::Contiguous);
}

Tensor no_gradient(const Tensor& like) { return torch::stable::new_empty(like, {0}); }

namespace {

template <typename T>
void sum_terms(const Tensor& partial, int64_t groups, Tensor& total) {
  const int64_t size = total.numel() / groups, terms = partial.numel() / total.numel();
  const T* from = static_cast<const T*>(partial.data_ptr());
  T* to = static_cast<T*>(total.data_ptr());
  parallel(total.numel(), terms, [&](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t group = first / size, stop = std::min(last, (group + 1) * size);
      std::fill(to + first, to + stop, T(0));
      for (int64_t term = 0; term < terms; ++term) {
        const T* row = from + (group * terms + term) * size - group * size;
        for (int64_t i = first; i < stop; ++i) to[i] += row[i];
      }
      first = stop;
    }
  });
}

}  // namespace

Tensor sum_partials(const Tensor& partial, int64_t groups, const Sizes& size) {
  Tensor total = torch::stable::new_empty(partial, size);
  if (partial.scalar_type() == ScalarType::Double) {
    sum_terms<double>(partial, groups, total);
  } else {
    sum_terms<float>(partial, groups, total);
  }
  return total;
}

Tensor sum_partials_by_torch(const Tensor& partial, int64_t groups, const Sizes& size) {
  int64_t elements = 1;
  for (const int64_t extent : size) elements *= extent;
  const std::array<int64_t, 1> terms{1};
  const Tensor by_term = torch::stable::reshape(partial, {groups, partial.numel() / elements, elements / groups});
  return torch::stable::reshape(torch::stable::sum(by_term, terms), size);
}

}  // namespace elsa
