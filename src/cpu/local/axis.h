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
            int64_t most_outputs, int64_t most_sources)
      : first(first_output), taps_(most_outputs), pixels_(divide_up(most_sources, most_lanes) * most_lanes) {
    const int64_t places = divide_up(extent - residue, dilation);
    count = smaller(most_outputs, places - first);
    if (count <= 0) return;
    int64_t low = INT64_MAX, high = INT64_MIN;
    for (int64_t k = 0; k < count; ++k) {
      taps_[k] = on_residue.taps(first + k, places);
      low = smaller(low, taps_[k].first), high = larger(high, taps_[k].first);
    }
    for (int64_t k = 0; k < count; ++k) taps_[k].first -= low;
    length = high - low + on_residue.kernel_size;
    const bool circular = on_residue.border == Border::circular;
    for (int64_t position = 0; position < divide_up(length, most_lanes) * most_lanes; ++position) {
      const int64_t place = low + position, pixel = residue + place * dilation;
      const bool inside = place >= 0 && place < places;
      pixels_[position] = position < length && (inside || circular) ? (pixel % extent + extent) % extent : -1;
    }
  }

  // The taps of the tile's output k, `first` in the window.
  const Taps& taps(int64_t k) const { return taps_[k]; }

  // The pixel of the map at a position of the window, or −1 outside the map; also for the positions after the window's
  // last, up to a whole vector.
  int64_t pixel(int64_t position) const { return pixels_[position]; }

  // Call f(position, pixel, number) for the runs of pixels that lie `step` apart: their first position in the window,
  // its pixel, and how many there are.
  template <typename Function>
  void for_each_run(int64_t step, const Function& f) const {
    for (int64_t position = 0; position < length; ++position) {
      const int64_t from = position;
      if (pixel(from) < 0) continue;
      while (position + 1 < length && pixel(position + 1) == pixel(position) + step) ++position;
      f(from, pixel(from), position + 1 - from);
    }
  }

 private:
  static constexpr int64_t most_lanes = lanes<float>;

  mutable Scratch<Taps> taps_;
  mutable Scratch<int64_t> pixels_;
};

// The tile of a unit in a sample and a head.
struct LocalTile {
  LocalAxis y, x;

  LocalTile(const LocalPlan& plan, const LocalShape& shape, const LocalUnit& unit)
      : y(plan.y, unit.residue_y, plan.residues_y, shape.height, unit.tile_y * plan.tiling.rows, plan.tiling.rows,
          plan.window_rows),
        x(plan.x, unit.residue_x, plan.residues_x, shape.width, unit.tile_x * plan.tiling.columns, plan.tiling.columns,
          plan.window_columns) {}

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

// Call inside(row of the window, row of the map) for the rows that lie in the map, outside(row of the window) for
// others.
template <typename Inside, typename Outside>
ELSA_INLINE void for_each_row(const LocalAxis& axis, const Inside& inside, const Outside& outside) {
  for (int64_t y = 0; y < axis.length; ++y) axis.pixel(y) < 0 ? outside(y) : inside(y, axis.pixel(y));
}

// Channels that sums are made of at a time, at most.
template <typename T>
constexpr int widest_slice = 2 * lanes<T>;

// Copy `count` channels of a tile's window into [rows][columns][width]; what lies outside the map is zero.
template <typename T>
void pack_pixels(const MapView& map, int64_t sample, int64_t channel, int64_t count, int64_t width,
                 const LocalPlan& plan, const LocalTile& tile, T* to) {
  const int64_t pitch = tile.x.length * width;
  with_type<T>(map.dtype, [&](auto type) {
    using From = decltype(type);
    static constexpr From nothing[widest_slice<T>] = {};
    const auto inside = [&](int64_t y, int64_t row) {
      const From* from = map.at<const From>(sample, channel, row, 0);
      T* here = to + y * pitch;
      if (map.channel_stride == 1) {
        for (int64_t x = 0; x < tile.x.length; ++x, here += width) {
          const int64_t column = tile.x.pixel(x);
          const From* pixel = column < 0 ? nothing : from + column * map.column_stride;
          if (count == width) {
            for (int64_t c = 0; c < width; c += lanes<T>) store(here + c, load_as<T>(pixel + c));
          } else {
            copy_channels(pixel, 1, count, width, here);
          }
        }
        return;
      }
      zero(here, pitch);
      tile.x.for_each_run(plan.residues_x, [&](int64_t x, int64_t column, int64_t columns) {
        pack_row<T, From>({from + column * map.column_stride, map.channel_stride, map.column_stride * plan.residues_x,
                           columns, count},
                          width, width, here + x * width);
      });
    };
    for_each_row(tile.y, inside, [&](int64_t y) { zero(to + y * pitch, pitch); });
  });
}

// Add a tile's window, [rows][columns][width] in scratch, to `count` channels of a map of numbers of type T that lie
// side by side.
template <typename T>
void add_pixels(const MapView& map, int64_t sample, int64_t channel, int64_t count, int64_t width,
                const LocalTile& tile, const T* from) {
  constexpr int64_t L = lanes<T>;
  for (int64_t y = 0; y < tile.y.length; ++y) {
    for (int64_t x = 0; x < tile.x.length; ++x, from += width) {
      if (tile.y.pixel(y) < 0 || tile.x.pixel(x) < 0) continue;
      T* to = map.at<T>(sample, channel, tile.y.pixel(y), tile.x.pixel(x));
      for (int64_t c = 0; c < count; c += L) {
        store_some<T>(to + c, load_some<T>(to + c, count - c) + load(from + c), count - c);
      }
    }
  }
}

// Lane p of v[c] becomes channel c of pixel p, whose channels lie side by side from pixel(p) on; channels beyond the
// last are zero.
template <typename T, typename Pixel>
ELSA_INLINE void load_transposed(const Pixel& pixel, int64_t channels, Vector<T> (&v)[lanes<T>]) {
  if (channels >= lanes<T>) {
#pragma GCC unroll 16
    for (int p = 0; p < lanes<T>; ++p) v[p] = load_as<T>(pixel(p));
  } else {
    for (int p = 0; p < lanes<T>; ++p) v[p] = load_some<T>(pixel(p), channels);
  }
  transpose<T>(v);
}

// Copy a row of the window, from a row of the map on, into planes: channel c of pixel x becomes to[c · pitch + x]. What
// lies outside the map, or after the window, is zero.
template <typename T, typename From>
void pack_planes_row(const Row<const From*>& row, const LocalAxis& axis, int64_t step, int64_t pitch, T* to) {
  constexpr int64_t L = lanes<T>;
  static constexpr From nothing[L] = {};
  if (row.channel == 1) {
    for (int64_t first = 0; first < row.count; first += L) {
      const int64_t channels = smaller(L, row.count - first);
      for (int64_t x = 0; x < pitch; x += L) {
        Vector<T> v[L];
        const auto pixel = [&](int64_t p) {
          const int64_t column = axis.pixel(x + p);
          return column < 0 ? nothing : row.data + column * row.column + first;
        };
        load_transposed<T>(pixel, channels, v);
        T* plane = to + first * pitch + x;
        if (channels == L) {
#pragma GCC unroll 16
          for (int c = 0; c < L; ++c) store(plane + c * pitch, v[c]);
        } else {
          for (int64_t c = 0; c < channels; ++c) store(plane + c * pitch, v[c]);
        }
      }
    }
    return;
  }
  zero(to, row.count * pitch);
  axis.for_each_run(step, [&](int64_t x, int64_t column, int64_t columns) {
    for (int64_t c = 0; c < row.count; ++c) {
      copy_channels(row.data + c * row.channel + column * row.column, row.column * step, columns, columns,
                    to + c * pitch + x);
    }
  });
}

// Copy `count` channels of a tile's window into planes, [rows][count][pitch], with a vector more at the end; what lies
// outside the map is zero, and so is what lies beyond the window: lanes without an output read it, and what is left
// there from before may be numbers that are slow to compute with.
template <typename T>
void pack_planes(const MapView& map, int64_t sample, int64_t channel, int64_t count, int64_t pitch,
                 const LocalPlan& plan, const LocalTile& tile, T* to) {
  const int64_t row_size = count * pitch;
  zero(to + tile.y.length * row_size, lanes<T>);
  with_type<T>(map.dtype, [&](auto type) {
    using From = decltype(type);
    const auto inside = [&](int64_t y, int64_t row) {
      const From* from = map.at<const From>(sample, channel, row, 0);
      pack_planes_row<T, From>({from, map.channel_stride, map.column_stride, 0, count}, tile.x, plan.residues_x, pitch,
                               to + y * row_size);
    };
    for_each_row(tile.y, inside, [&](int64_t y) { zero(to + y * row_size, row_size); });
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
