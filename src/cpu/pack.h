// Copies between tensors of any layout and dtype and the channels-last scratch in which the kernels compute.
#pragma once

#include "simd.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The positions of one axis that the pixels of a tile read, and the taps that reach the map from any of them.
struct Axis {
  int64_t first_tap = 0, taps = 0;
  int64_t origin = 0, length = 0;

  Axis(int64_t first_pixel, int64_t pixels, int64_t step, int64_t extent, const GhostHeadShape& shape) {
    const int64_t radius = shape.kernel_size / 2;
    for (int64_t tap = 0; tap < shape.kernel_size; ++tap) {
      const int64_t low = step * first_pixel + (tap - radius) * shape.dilation;
      if (low + step * (pixels - 1) >= 0 && low < extent) {
        first_tap = taps == 0 ? tap : first_tap;
        taps = tap - first_tap + 1;
      }
    }
    origin = step * first_pixel + (first_tap - radius) * shape.dilation;
    length = taps == 0 ? 0 : step * (pixels - 1) + (taps - 1) * shape.dilation + 1;
  }
  Axis(int64_t first, int64_t count) : origin(first), length(count) {}
};

// The pixels of a map along one axis of a window: the first one's position in the window, which it is, and their
// number.
struct Inside {
  int64_t position, pixel, count;
};

// A rectangle of a map, in coordinates in which the map's pixels lie `spacing` apart with zeros between them.
struct Window {
  Axis y, x;
  int64_t spacing = 1;

  int64_t pixels() const { return y.length * x.length; }

  Inside inside(const Axis& axis, int64_t extent) const {
    const int64_t pixel = axis.origin <= 0 ? 0 : (axis.origin + spacing - 1) / spacing;
    const int64_t position = pixel * spacing - axis.origin;
    const int64_t room = position < axis.length ? (axis.length - position - 1) / spacing + 1 : 0;
    const int64_t left = pixel < extent ? extent - pixel : 0;
    return {position, pixel, room < left ? room : left};
  }
};

template <typename T, typename From>
ELSA_INLINE void copy_channels(const From* from, int64_t stride, int64_t count, int64_t width, T* to) {
  if (stride == 1) {
    for (int64_t k = 0; k < count; ++k) {
      to[k] = convert<T>(from[k]);
    }
  } else {
    for (int64_t k = 0; k < count; ++k) {
      to[k] = convert<T>(from[k * stride]);
    }
  }
  for (int64_t k = count; k < width; ++k) {
    to[k] = T(0);
  }
}

template <typename T>
ELSA_INLINE void zero(T* to, int64_t count) {
  std::memset(to, 0, std::size_t(count) * sizeof(T));
}

template <typename T, typename From>
void pack_window_of(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width,
                    const Window& window, T* to) {
  const Inside rows = window.inside(window.y, map.height), columns = window.inside(window.x, map.width);
  if (rows.count * columns.count < window.pixels()) zero(to, window.pixels() * width);
  const From* from = static_cast<const From*>(map.data) + sample * map.batch_stride +
                     first_channel * map.channel_stride + rows.pixel * map.row_stride +
                     columns.pixel * map.column_stride;
  to += (rows.position * window.x.length + columns.position) * width;
  for (int64_t v = 0; v < rows.count; ++v) {
    for (int64_t u = 0; u < columns.count; ++u) {
      copy_channels(from + v * map.row_stride + u * map.column_stride, map.channel_stride, count, width,
                    to + (v * window.x.length + u) * window.spacing * width);
    }
  }
}

// Copy `count` channels of a window into scratch of `width` channels a pixel; what lies outside the map is zero.
template <typename T>
void pack_window(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width,
                 const Window& window, T* to) {
  if constexpr (sizeof(T) == sizeof(double)) {
    pack_window_of<T, double>(map, sample, first_channel, count, width, window, to);
  } else if (map.dtype == DType::float32) {
    pack_window_of<T, float>(map, sample, first_channel, count, width, window, to);
  } else if (map.dtype == DType::bfloat16) {
    pack_window_of<T, BFloat16>(map, sample, first_channel, count, width, window, to);
  } else {
    pack_window_of<T, Float16>(map, sample, first_channel, count, width, window, to);
  }
}

// A row of all of a map's channels in the accumulation type: the map's own where it lies so, or a copy in `scratch`.
template <typename T>
const T* dense_row(const MapView& map, int64_t sample, int64_t row, int64_t channels, T* scratch) {
  const bool accumulates = map.dtype == (sizeof(T) == sizeof(double) ? DType::float64 : DType::float32);
  if (accumulates && map.channel_stride == 1 && map.column_stride == channels) {
    return static_cast<const T*>(map.data) + sample * map.batch_stride + row * map.row_stride;
  }
  pack_window<T>(map, sample, 0, channels, channels, {{row, 1}, {0, map.width}}, scratch);
  return scratch;
}

template <typename T, typename To>
void unpack_row_to(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width, int64_t row,
                   int64_t first_column, int64_t columns, const T* from) {
  To* to = static_cast<To*>(map.data) + sample * map.batch_stride + first_channel * map.channel_stride +
           row * map.row_stride + first_column * map.column_stride;
  if (map.channel_stride == 1) {
    for (int64_t x = 0; x < columns; ++x) {
      for (int64_t k = 0; k < count; ++k) {
        to[x * map.column_stride + k] = convert<To>(from[x * width + k]);
      }
    }
  } else {
    for (int64_t k = 0; k < count; ++k) {
      for (int64_t x = 0; x < columns; ++x) {
        to[x * map.column_stride + k * map.channel_stride] = convert<To>(from[x * width + k]);
      }
    }
  }
}

// Copy `count` channels of a row of scratch pixels, `width` channels apart, into a map.
template <typename T>
void unpack_row(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width, int64_t row,
                int64_t first_column, int64_t columns, const T* from) {
  if constexpr (sizeof(T) == sizeof(double)) {
    unpack_row_to<T, double>(map, sample, first_channel, count, width, row, first_column, columns, from);
  } else if (map.dtype == DType::float32) {
    unpack_row_to<T, float>(map, sample, first_channel, count, width, row, first_column, columns, from);
  } else if (map.dtype == DType::bfloat16) {
    unpack_row_to<T, BFloat16>(map, sample, first_channel, count, width, row, first_column, columns, from);
  } else {
    unpack_row_to<T, Float16>(map, sample, first_channel, count, width, row, first_column, columns, from);
  }
}

template <typename T, typename From>
void pack_matrix_of(const MatrixView& matrix, int64_t offset, int64_t count, int64_t taps, int64_t width, T* to) {
  const From* from = static_cast<const From*>(matrix.data) + offset;
  for (int64_t tap = 0; tap < taps; ++tap) {
    copy_channels(from + tap, taps, count, width, to + tap * width);
  }
}

// Copy the matrices of `count` channels, from the element `offset` on, into [taps][width].
template <typename T>
void pack_matrix(const MatrixView& matrix, int64_t offset, int64_t count, int64_t taps, int64_t width, T* to) {
  if constexpr (sizeof(T) == sizeof(double)) {
    pack_matrix_of<T, double>(matrix, offset, count, taps, width, to);
  } else if (matrix.dtype == DType::float32) {
    pack_matrix_of<T, float>(matrix, offset, count, taps, width, to);
  } else if (matrix.dtype == DType::bfloat16) {
    pack_matrix_of<T, BFloat16>(matrix, offset, count, taps, width, to);
  } else {
    pack_matrix_of<T, Float16>(matrix, offset, count, taps, width, to);
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
