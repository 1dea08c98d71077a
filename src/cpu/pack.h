// Copies between tensors of any layout and dtype and the channels-last scratch in which the kernels compute.
#pragma once

#include "../core/neighbourhood.h"
#include "../core/views.h"
#include "scratch.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The positions of one axis that the pixels of a tile read, and the taps that they read there.
struct Axis {
  int64_t first_tap = 0, taps = 0;
  int64_t origin = 0, length = 0;

  Axis(int64_t first, int64_t count) : origin(first), length(count) {}

  // What `pixels` pixels from `first_pixel` on read with `taps` taps from `first_tap` on.
  Axis(int64_t first_pixel, int64_t pixels, const Neighbourhood& around, int64_t first_tap, int64_t taps)
      : first_tap(first_tap), taps(taps), origin(around.first_source(first_pixel) + first_tap * around.dilation) {
    length = taps == 0 ? 0 : around.stride * (pixels - 1) + (taps - 1) * around.dilation + 1;
  }

  // The same with the taps that reach [0, extent) from any of the pixels.
  static Axis of_taps_inside(int64_t first_pixel, int64_t pixels, const Neighbourhood& around, int64_t extent) {
    int64_t first_tap = 0, taps = 0;
    for (int64_t tap = 0; tap < around.kernel_size; ++tap) {
      const int64_t low = around.first_source(first_pixel) + tap * around.dilation;
      if (low + around.stride * (pixels - 1) >= 0 && low < extent) {
        first_tap = taps == 0 ? tap : first_tap;
        taps = tap - first_tap + 1;
      }
    }
    return {first_pixel, pixels, around, first_tap, taps};
  }
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

// Call f with a number of the type that `dtype` stands for; T is that type's accumulation type.
template <typename T, typename Function>
ELSA_INLINE void with_type(DType dtype, const Function& f) {
  if constexpr (sizeof(T) == sizeof(double)) {
    f(double());
  } else if (dtype == DType::float32) {
    f(float());
  } else if (dtype == DType::bfloat16) {
    f(BFloat16());
  } else {
    f(Float16());
  }
}

template <typename T>
ELSA_INLINE void zero(T* to, int64_t count) {
  std::memset(to, 0, std::size_t(count) * sizeof(T));
}

// Call f(first, number) on runs of a vector's length; the last one overlaps the run before it, or is the only one and
// shorter.
template <typename T, typename Function>
ELSA_INLINE void for_each_vector(int64_t count, const Function& f) {
  constexpr int64_t L = lanes<T>;
  if (count < L) return f(0, count);
  for (int64_t k = 0; k + L <= count; k += L) f(k, L);
  if (count % L != 0) f(count - L, L);
}

// Copy `count` elements that lie `stride` apart; zeros follow up to `width`.
template <typename T, typename From>
ELSA_INLINE void copy_channels(const From* from, int64_t stride, int64_t count, int64_t width, T* to) {
  if (stride == 1) {
    for_each_vector<T>(count, [&](int64_t k, int64_t n) { store_some<T>(to + k, load_some<T>(from + k, n), n); });
  } else {
    for (int64_t k = 0; k < count; ++k) to[k] = convert<T>(from[k * stride]);
  }
  for (int64_t k = count; k < width; ++k) to[k] = T(0);
}

// A row of pixels of a map with `count` of its channels, which lie `channel` elements apart, and the pixels `column`.
template <typename Pointer>
struct Row {
  Pointer data;
  int64_t channel, column, pixels, count;
};

// Copy a row into scratch of `width` channels a pixel, the pixels `step` apart.
template <typename T, typename From>
void pack_row(const Row<const From*>& row, int64_t width, int64_t step, T* to) {
  constexpr int64_t L = lanes<T>;
  if (row.channel == 1 && row.count == 2 * L) {  // a whole slice of channels: the most frequent case by far
    for (int64_t x = 0; x < row.pixels; ++x, to += step) {
      const From* from = row.data + x * row.column;
      store(to, load_as<T>(from));
      store(to + L, load_as<T>(from + L));
    }
    return;
  }
  if (row.channel == 1 || row.column != 1) {
    for (int64_t x = 0; x < row.pixels; ++x) {
      copy_channels(row.data + x * row.column, row.channel, row.count, width, to + x * step);
    }
    return;
  }
  for (int64_t first = 0; first < width; first += L) {
    for_each_vector<T>(row.pixels, [&](int64_t x, int64_t pixels) {
      Vector<T> v[L] = {};
      for (int64_t k = 0; k < L && first + k < row.count; ++k) {
        v[k] = load_some<T>(row.data + (first + k) * row.channel + x, pixels);
      }
      transpose<T>(v);
      for (int64_t p = 0; p < pixels; ++p) store_some<T>(to + (x + p) * step + first, v[p], width - first);
    });
  }
}

// Copy scratch pixels, `width` apart, into a row.
template <typename T, typename To>
void unpack_row(const T* from, int64_t width, const Row<To*>& row) {
  constexpr int64_t L = lanes<T>;
  if (row.channel == 1) {
    for (int64_t x = 0; x < row.pixels; ++x, from += width) {
      To* to = row.data + x * row.column;
      for_each_vector<T>(row.count, [&](int64_t k, int64_t n) { store_some<T>(to + k, load_some<T>(from + k, n), n); });
    }
  } else if (row.column == 1) {
    for (int64_t first = 0; first < row.count; first += L) {
      for_each_vector<T>(row.pixels, [&](int64_t x, int64_t pixels) {
        Vector<T> v[L] = {};
        for (int64_t p = 0; p < pixels; ++p) v[p] = load_some<T>(from + (x + p) * width + first, row.count - first);
        transpose<T>(v);
        for (int64_t k = 0; k < L && first + k < row.count; ++k) {
          store_some<T>(row.data + (first + k) * row.channel + x, v[k], pixels);
        }
      });
    }
  } else {
    for (int64_t x = 0; x < row.pixels; ++x) {
      for (int64_t k = 0; k < row.count; ++k) {
        row.data[x * row.column + k * row.channel] = convert<To>(from[x * width + k]);
      }
    }
  }
}

template <typename T, typename From>
void pack_window_of(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width,
                    const Window& window, T* to) {
  const Inside rows = window.inside(window.y, map.height), columns = window.inside(window.x, map.width);
  const int64_t pitch = window.x.length * width, step = window.spacing * width;
  const int64_t left = columns.position * width, right = left + columns.count * width;
  const From* from = map.at<const From>(sample, first_channel, rows.pixel, columns.pixel);
  if (window.spacing != 1 || rows.count * columns.count == 0) {
    zero(to, window.y.length * pitch);
  } else {
    zero(to, rows.position * pitch);
    const int64_t below = rows.position + rows.count;
    zero(to + below * pitch, (window.y.length - below) * pitch);
  }
  for (int64_t v = 0; v < rows.count; ++v) {
    T* row = to + (rows.position + v * window.spacing) * pitch;
    if (window.spacing == 1) {
      zero(row, left);
      zero(row + right, pitch - right);
    }
    pack_row<T, From>({from + v * map.row_stride, map.channel_stride, map.column_stride, columns.count, count}, width,
                      step, row + left);
  }
}

// Copy `count` channels of a window into scratch of `width` channels a pixel; what lies outside the map is zero.
template <typename T>
void pack_window(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width,
                 const Window& window, T* to) {
  with_type<T>(map.dtype, [&](auto from) {
    pack_window_of<T, decltype(from)>(map, sample, first_channel, count, width, window, to);
  });
}

// Whether a map holds numbers of the accumulation type T, with the channels of a pixel side by side: then kernels need
// no copy of it.
template <typename T>
bool lies_as_scratch(const MapView& map) {
  return map.dtype == (sizeof(T) == sizeof(double) ? DType::float64 : DType::float32) && map.channel_stride == 1;
}

// Copy `count` channels of a row of scratch pixels, `width` channels apart, into a map.
template <typename T>
void unpack_row(const MapView& map, int64_t sample, int64_t first_channel, int64_t count, int64_t width, int64_t row,
                int64_t first_column, int64_t columns, const T* from) {
  with_type<T>(map.dtype, [&](auto to) {
    using To = decltype(to);
    To* data = map.at<To>(sample, first_channel, row, first_column);
    unpack_row<T, To>(from, width, {data, map.channel_stride, map.column_stride, columns, count});
  });
}

// Copy the matrices of `count` channels, from the element `offset` on, into [taps][width].
template <typename T>
void pack_matrix(const MatrixView& matrix, int64_t offset, int64_t count, int64_t taps, int64_t width, T* to) {
  with_type<T>(matrix.dtype, [&](auto from) {
    using From = decltype(from);
    pack_row<T, From>({static_cast<const From*>(matrix.data) + offset, taps, 1, taps, count}, width, width, to);
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
