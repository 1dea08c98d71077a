// A ghost matrix on the device: float32, or of the maps' type T.
#pragma once

#include <device.cuh>

#include "../../../core/views.h"

namespace elsa::ghost_head {

using namespace cuda;

template <typename T>
struct Matrix {
  const void* data;
  bool is_float32;
  int64_t batch_stride;

  ELSA_INLINE_ANYWHERE explicit Matrix(const MatrixView& view)
      : data(view.data), is_float32(view.dtype == DType::float32), batch_stride(view.batch_stride) {}

  __device__ Accumulator<T> at(int64_t index) const {
    return is_float32 ? static_cast<const float*>(data)[index] : widened(static_cast<const T*>(data)[index]);
  }
};

}  // namespace elsa::ghost_head
