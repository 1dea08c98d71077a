// The CUDA device and stream that an op works on.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include "../../ops/tensor.h"

namespace elsa {

// While it lives, the device of `tensor` is the current one. A tensor elsewhere is for the op's checks to name.
class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor& tensor)
      : guard_(tensor.is_cuda() ? tensor.get_device_index() : torch::stable::accelerator::getCurrentDeviceIndex()) {}

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

inline void* current_stream() {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_get_current_cuda_stream(torch::stable::accelerator::getCurrentDeviceIndex(), &stream));
  return stream;
}

}  // namespace elsa
