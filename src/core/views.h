// How kernels see tensors: a pointer, a dtype and strides, counted in elements.
#pragma once

#include "dtype.h"
#include "inline.h"

namespace elsa {

// Where an element of a map is; `View` has the map's strides.
template <typename T, typename View>
ELSA_INLINE_ANYWHERE T* element_at(T* data, const View& view, int64_t sample, int64_t channel, int64_t row,
                                   int64_t column) {
  return data + sample * view.batch_stride + channel * view.channel_stride + row * view.row_stride +
         column * view.column_stride;
}

// A (B, C, H, W) tensor with any strides. Absent if data is null.
struct MapView {
  void* data;
  DType dtype;
  int64_t height, width;
  int64_t batch_stride, channel_stride, row_stride, column_stride;

  template <typename T>
  ELSA_INLINE_ANYWHERE T* at(int64_t sample, int64_t channel, int64_t row, int64_t column) const {
    return element_at(static_cast<T*>(data), *this, sample, channel, row, column);
  }
};

// Contiguous (C, K, K) matrices; batch_stride is C·K² for one per sample and 0 for shared ones. Absent if data is null.
struct MatrixView {
  const void* data;
  DType dtype;
  int64_t batch_stride;
};

}  // namespace elsa
