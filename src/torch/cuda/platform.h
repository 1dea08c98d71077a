// The CUDA device and stream that an op works on.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

namespace elsa {

// What `work` returns, the device of `tensor` being the current one. A tensor elsewhere is for the op's checks to name.
template <typename Work>
auto on_device_of(const torch::stable::Tensor& tensor, const Work& work) {
  using namespace torch::stable::accelerator;
  const DeviceGuard guard(tensor.is_cuda() ? tensor.get_device_index() : getCurrentDeviceIndex());
  return work();
}

// A cudaStream_t.
inline void* current_stream() {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(torch::stable::accelerator::getCurrentDeviceIndex(), &stream));
  return stream;
}

}  // namespace elsa
