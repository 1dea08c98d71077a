// Tensors through LibTorch's stable ABI: argument checks, allocation, views for the kernels.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <string>

#include "../core/index.h"
#include "../core/neighbourhood.h"
#include "../core/views.h"
#include "errors.h"

// Headers of older torches have only the one that does not say what went wrong.
#if !defined(STABLE_TORCH_ERROR_CODE_CHECK)
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

namespace elsa {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;

Sizes sizes(const Tensor& tensor);

// `tensor` is there, and its storage has the memory that its elements lie in: `resize_` may have taken it away.
void check_memory(const char* argument, const Tensor& tensor);

// One of the four dtypes of the ops, and memory behind it.
void check_dtype(const char* argument, const Tensor& tensor);

void check_device(const char* argument, const Tensor& tensor, const char* like_argument, const Tensor& like);

// `tensor` has the dtype and the device of `like`, and memory behind it.
void check_like(const char* argument, const Tensor& tensor, const char* like_argument, const Tensor& like);

void check_sizes(const char* argument, const Tensor& tensor, const Sizes& expected);

void check_geometry(int64_t kernel_size, int64_t dilation, int64_t stride);

// Beyond the map's size every dilation is the same: only the centre tap is inside.
int64_t effective_dilation(int64_t dilation, int64_t height, int64_t width);

DType kernel_dtype(const Tensor& tensor);

// float64 stays; everything else is accumulated in float32.
ScalarType accumulation_dtype(const Tensor& tensor);

MapView map_view(const Tensor& tensor);

// Where a tensor's numbers are; null where there is none.
const void* data(const OptionalTensor& tensor);

// An uninitialised tensor of `size` in the memory format of `like`: channels_last where channels are its innermost
// dimension (a channel slice of a wider channels_last tensor included), contiguous otherwise.
Tensor empty_in_format(const Tensor& like, const Sizes& size);

// What stands for a gradient that nobody asked for.
Tensor no_gradient(const Tensor& like);

}  // namespace elsa
