// What a tile reads along one axis of a residue, and copies of it: pixels of a window, or planes of a channel each.
#pragma once

#include "../pack.h"
#include "plan.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The outputs of a tile along one axis and the window that their taps read. Positions count from the window's first.
class LocalAxis {
 public:
  int64_t first, count;  // of the outputs, on the residue
  int64_t length;        // of the window

  LocalAxis(const Neighbourhood& on_residue, int64_t residue, int64_t dilation, int64_t extent, int64_t first_output,
            int64_t most_outputs)
      : first(first_output),
        residue_(residue),
        dilation_(dilation),
        extent_(extent),
        circular_(on_residue.border == Border::circular),
        places_(divide_up(extent - residue, dilation)),
        taps_(most_outputs) {
    count = smaller(most_outputs, places_ - first);
    if (count <= 0) return;
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t k = 0; k < count; ++k) {
      taps_[k] = on_residue.taps(first + k, places_);
      low = smaller(low, taps_[k].first), high = larger(high, taps_[k].first);
    }
    for (int64_t k = 0; k < count; ++k) taps_[k].first -= low;
    origin_ = low, length = high - low + on_residue.kernel_size;
  }

  // The taps of the tile's output k, `first` in the window.
  const Taps& taps(int64_t k) const { return taps_[k]; }

  // Call f(position, pixel, number) for the runs of sources that lie inside the map: their first position in the
  // window, its pixel of the map, and how many there are, each `dilation` pixels after the one before.
  template <typename Function>
  void for_each_run(const Function& f) const {
    if (!circular_) {
      const int64_t from = larger(0, origin_), to = smaller(places_, origin_ + length);
      if (from < to) f(from - origin_, residue_ + from * dilation_, to - from);
      return;
    }
    for (int64_t position = 0; position < length;) {
      int64_t pixel = (residue_ + (origin_ + position) * dilation_) % extent_;
      if (pixel < 0) pixel += extent_;
      const int64_t number = smaller(divide_up(extent_ - pixel, dilation_), length - position);
      f(position, pixel, number);
      position += number;
    }
  }

  bool lies_inside() const { return circular_ || (origin_ >= 0 && origin_ + length <= places_); }

 private:
  int64_t residue_, dilation_, extent_, origin_ = 0;
  bool circular_;
  int64_t places_;
  mutable Scratch<Taps> taps_;
};

// The tile of a unit in a sample and a head.
struct LocalTile {
  LocalAxis y, x;

  LocalTile(const LocalPlan& plan, const LocalShape& shape, const LocalUnit& unit)
      : y(plan.y, unit.residue_y, plan.residues_y, shape.height, unit.tile_y * plan.tiling.rows, plan.tiling.rows),
        x(plan.x, unit.residue_x, plan.residues_x, shape.width, unit.tile_x * plan.tiling.columns,
          plan.tiling.columns) {}

  bool is_empty() const { return y.count <= 0 || x.count <= 0; }
};

// The pixels of a residue as a map.
inline MapView residue_of(MapView map, const LocalPlan& plan, const LocalUnit& unit) {
  const int64_t offset = unit.residue_y * map.row_stride + unit.residue_x * map.column_stride;
  map.data = static_cast<char*>(map.data) + offset * size_of(map.dtype);
  map.height = divide_up(map.height - unit.residue_y, plan.residues_y);
  map.width = divide_up(map.width - unit.residue_x, plan.residues_x);
  map.row_stride *= plan.residues_y, map.column_stride *= plan.residues_x;
  return map;
}

// Copy `count` channels of a tile's window into [rows][columns][width]; what lies outside the map is zero.
template <typename T>
void pack_pixels(const MapView& map, int64_t sample, int64_t channel, int64_t count, int64_t width,
                 const LocalPlan& plan, const LocalTile& tile, T* to) {
  const int64_t pitch = tile.x.length * width;
  if (!tile.y.lies_inside() || !tile.x.lies_inside()) zero(to, tile.y.length * pitch);
  with_type<T>(map.dtype, [&](auto type) {
    using From = decltype(type);
    tile.y.for_each_run([&](int64_t y, int64_t row, int64_t rows) {
      for (int64_t k = 0; k < rows; ++k) {
        tile.x.for_each_run([&](int64_t x, int64_t column, int64_t columns) {
          const From* from = map.at<const From>(sample, channel, row + k * plan.residues_y, column);
          pack_row<T, From>({from, map.channel_stride, map.column_stride * plan.residues_x, columns, count}, width,
                            width, to + (y + k) * pitch + x * width);
        });
      }
    });
  });
}

// Add a tile's window, [rows][columns][width] in scratch, to `count` channels of a map of numbers of type T that lie
// side by side.
template <typename T>
void add_pixels(const MapView& map, int64_t sample, int64_t channel, int64_t count, int64_t width,
                const LocalPlan& plan, const LocalTile& tile, const T* from) {
  constexpr int64_t L = lanes<T>;
  const int64_t pitch = tile.x.length * width;
  tile.y.for_each_run([&](int64_t y, int64_t row, int64_t rows) {
    for (int64_t k = 0; k < rows; ++k) {
      tile.x.for_each_run([&](int64_t x, int64_t column, int64_t columns) {
        T* to = map.at<T>(sample, channel, row + k * plan.residues_y, column);
        const T* pixel = from + (y + k) * pitch + x * width;
        for (int64_t p = 0; p < columns; ++p, pixel += width, to += map.column_stride * plan.residues_x) {
          for (int64_t c = 0; c < count; c += L) {
            store_some<T>(to + c, load_some<T>(to + c, count - c) + load(pixel + c), count - c);
          }
        }
      });
    }
  });
}

// Lane p of v[c] becomes channel c of pixel p, of up to as many of both as there are lanes; lanes beyond the last pixel
// repeat it. The channels lie side by side, the pixels `column` apart.
template <typename T, typename From>
ELSA_INLINE void load_transposed(const From* from, int64_t column, int64_t pixels, int64_t channels,
                                 Vector<T> (&v)[lanes<T>]) {
  if (channels >= lanes<T>) {
#pragma GCC unroll 16
    for (int p = 0; p < lanes<T>; ++p) v[p] = load_as<T>(from + smaller(p, pixels - 1) * column);
  } else {
    for (int p = 0; p < lanes<T>; ++p) v[p] = load_some<T>(from + smaller(p, pixels - 1) * column, channels);
  }
  transpose<T>(v);
}

// Copy a row of pixels into planes: channel c of pixel x becomes to[c · pitch + x].
template <typename T, typename From>
void pack_planes_row(const Row<const From*>& row, int64_t pitch, T* to) {
  constexpr int64_t L = lanes<T>;
  if (row.channel == 1) {
    for (int64_t first = 0; first < row.count; first += L) {
      const int64_t channels = smaller(L, row.count - first);
      for_each_vector<T>(row.pixels, [&](int64_t x, int64_t pixels) {
        Vector<T> v[L];
        load_transposed<T>(row.data + x * row.column + first, row.column, pixels, channels, v);
        T* plane = to + first * pitch + x;
        if (pixels == L && channels == L) {
#pragma GCC unroll 16
          for (int c = 0; c < L; ++c) store_unaligned(plane + c * pitch, v[c]);
        } else {
          for (int64_t c = 0; c < channels; ++c) store_some<T>(plane + c * pitch, v[c], pixels);
        }
      });
    }
  } else {
    for (int64_t c = 0; c < row.count; ++c) {
      copy_channels(row.data + c * row.channel, row.column, row.pixels, row.pixels, to + c * pitch);
    }
  }
}

// The reverse of it.
template <typename T, typename To>
void unpack_planes_row(const T* from, int64_t pitch, const Row<To*>& row) {
  constexpr int64_t L = lanes<T>;
  if (row.column == 1) {
    for (int64_t c = 0; c < row.count; ++c) {
      for_each_vector<T>(row.pixels, [&](int64_t x, int64_t n) {
        store_some<T>(row.data + c * row.channel + x, load_some<T>(from + c * pitch + x, n), n);
      });
    }
  } else if (row.channel == 1) {
    for (int64_t x = 0; x < row.pixels; x += L) {
      for_each_vector<T>(row.count, [&](int64_t first, int64_t channels) {
        Vector<T> v[L] = {};
        for (int64_t c = 0; c < channels; ++c) v[c] = load_some<T>(from + (first + c) * pitch + x, row.pixels - x);
        transpose<T>(v);
        for (int64_t p = 0; p < L && x + p < row.pixels; ++p) {
          store_some<T>(row.data + (x + p) * row.column + first, v[p], channels);
        }
      });
    }
  } else {
    for (int64_t c = 0; c < row.count; ++c) {
      for (int64_t x = 0; x < row.pixels; ++x) {
        row.data[c * row.channel + x * row.column] = convert<To>(from[c * pitch + x]);
      }
    }
  }
}

// Copy `count` channels of a tile's window into planes, [rows][count][pitch], with a vector more at the end; what lies
// outside the map is zero, and so is what lies beyond the window: lanes without an output read it, and what is left
// there from before may be numbers that are slow to compute with.
template <typename T>
void pack_planes(const MapView& map, int64_t sample, int64_t channel, int64_t count, int64_t pitch,
                 const LocalPlan& plan, const LocalTile& tile, T* to) {
  const int64_t planes = tile.y.length * count;
  zero(to + planes * pitch, lanes<T>);
  if (!tile.y.lies_inside() || !tile.x.lies_inside()) {
    zero(to, planes * pitch);
  } else if (pitch > tile.x.length) {
    for (int64_t plane = 1; plane <= planes; ++plane) store(to + plane * pitch - lanes<T>, Vector<T>{});
  }
  with_type<T>(map.dtype, [&](auto type) {
    using From = decltype(type);
    tile.y.for_each_run([&](int64_t y, int64_t row, int64_t rows) {
      for (int64_t k = 0; k < rows; ++k) {
        tile.x.for_each_run([&](int64_t x, int64_t column, int64_t columns) {
          const From* from = map.at<const From>(sample, channel, row + k * plan.residues_y, column);
          pack_planes_row<T, From>({from, map.channel_stride, map.column_stride * plan.residues_x, columns, count},
                                   pitch, to + (y + k) * count * pitch + x);
        });
      }
    });
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
