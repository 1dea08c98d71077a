// Tensors through LibTorch's stable ABI: argument checks, allocation, views for the kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <initializer_list>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "elsa/ghost_head.h"

namespace elsa {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using OptionalTensor = std::optional<Tensor>;
using Sizes = std::vector<int64_t>;

std::ostream& operator<<(std::ostream& out, const Sizes& sizes);

// What an op throws. Its message begins with `elsa::<op>: `.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throw `elsa::<op>: <parts>` unless `ok`.
template <typename... Parts>
void check(bool ok, const char* op, const Parts&... parts) {
  if (!ok) {
    std::ostringstream message;
    message << "elsa::" << op << ": ";
    (message << ... << parts);
    throw Error(message.str());
  }
}

// Why a function of PyTorch or of the C++ library failed, in one sentence.
std::string cause(const std::exception& error);

// What `work` returns. An error that is not the op's own, such as an allocation that failed, is thrown as one of `op`.
template <typename Work>
auto named(const char* op, const Work& work) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {
    throw Error("elsa::" + std::string(op) + ": " + cause(error));
  }
}

// The product of factors that are not negative, or the largest number where 64 bits do not hold it.
int64_t product(std::initializer_list<int64_t> factors);

std::string name(ScalarType dtype);
std::string show_device(const Tensor& tensor);
Sizes sizes(const Tensor& tensor);

// `tensor` is there, and its storage has the memory that its elements lie in: `resize_` may have taken it away.
void check_memory(const char* op, const char* argument, const Tensor& tensor);

// One of the four dtypes of the ops, and memory behind it.
void check_dtype(const char* op, const char* argument, const Tensor& tensor);

// `tensor` has the dtype and the device of `like`, and memory behind it.
void check_like(const char* op, const char* argument, const Tensor& tensor, const char* like_argument,
                const Tensor& like);

void check_sizes(const char* op, const char* argument, const Tensor& tensor, const Sizes& expected);

// kernel_size, dilation and stride.
void check_geometry(const char* op, int64_t kernel_size, int64_t dilation, int64_t stride);

DType kernel_dtype(const Tensor& tensor);

// float64 stays; everything else is accumulated in float32.
ScalarType accumulation_dtype(const Tensor& tensor);

MapView map_view(const Tensor& tensor);

// An uninitialised tensor of `size` in the memory format of `like`: channels_last where channels are its innermost
// dimension (a channel slice of a wider channels_last tensor included), contiguous otherwise.
Tensor empty_in_format(const Tensor& like, const Sizes& size);

// What stands for a gradient that nobody asked for.
Tensor no_gradient(const Tensor& like);

// Run `work(first, last)` over `units` of about `unit_cost` multiply-adds each: in parallel where it is worth a thread.
template <typename Work>
void parallel(int64_t units, int64_t unit_cost, const Work& work) {
  constexpr int64_t worth_a_thread = 1 << 16;
  torch::stable::parallel_for(0, units, unit_cost < worth_a_thread ? worth_a_thread / (unit_cost + 1) + 1 : 1, work);
}

// Add up the partial results of a fixed partition, [groups][terms][…], in their order: into `size`, over terms.
Tensor sum_partials(const Tensor& partial, int64_t groups, const Sizes& size);

// The same on any device, by PyTorch.
Tensor sum_partials_by_torch(const Tensor& partial, int64_t groups, const Sizes& size);

}  // namespace elsa
