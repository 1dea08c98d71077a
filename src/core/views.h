// How kernels see tensors: a pointer, a dtype and strides, counted in elements.
#pragma once

#include "dtype.h"

#if defined(__CUDACC__)
#define ELSA_INLINE_ANYWHERE __host__ __device__ __forceinline__
#else
// Always inlined: the linker must never pick one instruction set's copy for another's caller.
#define ELSA_INLINE_ANYWHERE inline __attribute__((always_inline))
#endif

namespace elsa {

// A (B, C, H, W) tensor with any strides. Absent if data is null.
struct MapView {
  void* data;
  DType dtype;
  int64_t height, width;
  int64_t batch_stride, channel_stride, row_stride, column_stride;

  template <typename T>
  ELSA_INLINE_ANYWHERE T* at(int64_t sample, int64_t channel, int64_t row, int64_t column) const {
    return static_cast<T*>(data) + sample * batch_stride + channel * channel_stride + row * row_stride +
           column * column_stride;
  }
};

// Contiguous (C, K, K) matrices; batch_stride is C·K² for one per sample and 0 for shared ones. Absent if data is null.
struct MatrixView {
  const void* data;
  DType dtype;
  int64_t batch_stride;
};

}  // namespace elsa
