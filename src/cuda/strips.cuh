// What the kernels on the float32 units share: how a map is cut among thread blocks, warps and lanes, and how they read
// it.
//
// A lane works on 4 channels × 7 pixels of a row. The pixels lie the dilation apart, so that the 7 + K − 1 pixels that
// it loads of a row of the source serve all taps of a kernel row, whatever the dilation. Eight lanes have the 32
// channels of a slice for the same 7 pixels, which are a strip; a warp has four strips.
#pragma once

#include <device.cuh>

#include "../core/index.h"
#include "../core/views.h"

namespace elsa::cuda {

constexpr int warp_lanes = 32;
constexpr int strip_lanes = 8, slice_channels = lane_channels * strip_lanes;
constexpr int warp_strips = warp_lanes / strip_lanes;
// 7 divides the widths of Swin's and VOLO's maps: 56, 28, 14 and 7.
constexpr int strip_pixels = 7;

// Consecutive channels of a pixel: 16 bytes in float32, 8 in 16-bit types.
template <typename T>
struct alignas(lane_channels * sizeof(T)) Channels {
  T data[lane_channels];
};

// A map of numbers of T.
template <typename T>
struct Map {
  T* data;
  int64_t batch_stride, channel_stride, row_stride, column_stride;

  explicit Map(const MapView& view)
      : data(static_cast<T*>(view.data)),
        batch_stride(view.batch_stride),
        channel_stride(view.channel_stride),
        row_stride(view.row_stride),
        column_stride(view.column_stride) {}

  __device__ T* at(int64_t sample, int64_t channel, int row, int column) const {
    return element_at(data, *this, sample, channel, row, column);
  }
};

// A strip: where its first pixel is, and what number that has among the `columns` columns of its residue.
struct Strip {
  int row, column, position, columns;
  bool inside;  // whether the strip has pixels of the map
};

// A map as tiles of `down` rows of `1 << log_across` strips.
//
// The strips of a row of pixels take the columns of one residue modulo the dilation after the other's. For a width of
// 18 and a dilation of 2 there are four, two of which reach out of the map:
//
// clang-format off
//   strip     0                     1                       2                     3
//   columns   0 2 4 6 8 10 12       14 16 - - - - -         1 3 5 7 9 11 13       15 17 - - - - -
//   residue   0                     0                       1                     1
//   position  0                     7                       0                     7
// clang-format on
struct StripTiling {
  int height, width, dilation, residue_columns, longer_residues, residue_strips, row_strips, log_across, down,
      tiles_across;
  int tiles;
  uint64_t reciprocal;  // 2³² / residue_strips, rounded up: exact for the widths that is_plain lets through

  StripTiling(int map_height, int map_width, int map_dilation, int tile_strips, int most_across)
      : height(map_height),
        width(map_width),
        dilation(map_dilation),
        residue_columns(map_width / map_dilation),
        longer_residues(map_width % map_dilation) {
    residue_strips = divide_up(divide_up(width, dilation), strip_pixels);
    row_strips = residue_strips * (dilation < width ? dilation : width);
    log_across = 0;
    while (2 << log_across <= most_across && 1 << log_across < row_strips) ++log_across;
    down = tile_strips >> log_across;
    tiles_across = divide_up(row_strips, 1 << log_across);
    tiles = tiles_across * divide_up(height, down);
    reciprocal = divide_up(uint64_t(1) << 32, residue_strips);
  }

  __device__ Strip strip(int tile, int index) const {
    const int across = 1 << log_across;
    const int row = tile / tiles_across * down + (index >> log_across);
    const int number = tile % tiles_across * across + (index & (across - 1));
    const int residue = int(number * reciprocal >> 32), position = (number - residue * residue_strips) * strip_pixels;
    const int columns = residue_columns + (residue < longer_residues);
    return {row, residue + position * dilation, position, columns, row < height && number < row_strips};
  }
};

// The strips that lie side by side in a tile. Where channels lie side by side, nearly square tiles read the fewest
// pixels; elsewhere neighbouring strips should read neighbouring pixels.
inline int strips_across(const MapView& map) { return map.channel_stride == 1 ? 2 : 8; }

__device__ inline bool within(int position, int extent) { return unsigned(position) < unsigned(extent); }

// Bit k: whether the pixel `first + k` dilations to the right of the strip's first is in the map.
__device__ inline uint32_t columns_inside(const Strip& strip, int first) {
  const int outside = -(strip.position + first), end = strip.columns + outside;
  const auto bits_below = [](int bit) {
    const int least = bit < 31 ? bit : 31;
    return (1u << (least < 0 ? 0 : least)) - 1;
  };
  return strip.inside ? bits_below(end) & ~bits_below(outside) : 0;
}

// Store a lane's channels, `count` of which exist, to a pixel. Vector says that channels lie side by side and all
// exist.
template <typename T, bool Vector>
__device__ void store_channels(const float (&from)[lane_channels], T* to, int64_t channel_stride, int count) {
  if constexpr (Vector) {
    Channels<T> stored;
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) stored.data[c] = rounded<T>(from[c]);
    *reinterpret_cast<Channels<T>*>(to) = stored;
  } else {
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      if (c < count) to[c * channel_stride] = rounded<T>(from[c]);
    }
  }
}

// Load a lane's channels, `count` of which exist, of `Count` pixels that are `byte_stride` bytes apart; zeros for
// pixels whose bit of `inside` is not set. Vector says that channels lie side by side and all exist.
template <typename T, bool Vector, int Count>
__device__ void load_words(const T* from, int64_t byte_stride, int64_t channel_stride, int count, uint32_t inside,
                           Words<T> (&to)[Count]) {
  const char* pixel = reinterpret_cast<const char*>(from);
#pragma unroll
  for (int k = 0; k < Count; ++k, pixel += byte_stride) {
    const bool load = inside >> k & 1;
    if constexpr (Vector) {
      to[k] = Words<T>{};
      if (load) to[k] = *reinterpret_cast<const Words<T>*>(pixel);
    } else {
      Channels<T> channels;
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        channels.data[c] = load && c < count ? reinterpret_cast<const T*>(pixel)[c * channel_stride] : T();
      }
      to[k] = __builtin_bit_cast(Words<T>, channels);
    }
  }
}

// The same as float32.
template <typename T, bool Vector, int Count>
__device__ void load_row(const T* from, int64_t byte_stride, int64_t channel_stride, int count, uint32_t inside,
                         float (&to)[Count][lane_channels]) {
  Words<T> words[Count];
  load_words<T, Vector>(from, byte_stride, channel_stride, count, inside, words);
#pragma unroll
  for (int k = 0; k < Count; ++k) unpack(words[k], to[k]);
}

// The bytes from a pixel of a map to the one `dilation` columns to the right.
template <typename T>
__device__ int64_t dilated_stride(const Map<T>& map, int dilation) {
  return dilation * map.column_stride * int(sizeof(T));
}

__device__ inline void load_shared(const float* from, float (&to)[lane_channels]) {
  const Channels<float> loaded = *reinterpret_cast<const Channels<float>*>(from);
#pragma unroll
  for (int c = 0; c < lane_channels; ++c) to[c] = loaded.data[c];
}

// The sum over a warp's strips of a number of each of its lanes; the lanes of the first strip get it.
__device__ inline float sum_over_strips(float number) {
#pragma unroll
  for (int lanes = strip_lanes; lanes < warp_lanes; lanes *= 2) number += __shfl_xor_sync(0xffffffff, number, lanes);
  return number;
}

// Whether lanes can load `channels` channels as vectors, whichever of them comes first.
template <typename T>
bool vectors_fit(const MapView& map, int64_t channels) {
  constexpr int64_t size = lane_channels;
  return channels % size == 0 && map.channel_stride == 1 && map.column_stride % size == 0 &&
         map.row_stride % size == 0 && map.batch_stride % size == 0 &&
         reinterpret_cast<uintptr_t>(map.data) % (size * sizeof(T)) == 0;
}

}  // namespace elsa::cuda
