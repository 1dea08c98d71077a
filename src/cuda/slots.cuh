// What the kernels share: how a map is cut among blocks, warps and lanes, and how they read it.
//
// A lane works on 4 channels × 7 pixels of a row. The pixels lie the dilation apart, so that the 7 + K − 1 pixels that
// it loads of a row of the source serve all taps of a kernel row, whatever the dilation. Eight lanes side by side make
// a slot: 32 channels. 7 divides the widths of Swin's and VOLO's maps.
#pragma once

#include <device.cuh>

#include "../core/views.h"

namespace elsa::cuda {

constexpr int slot_lanes = 8, slot_channels = lane_channels * slot_lanes;
constexpr int slot_pixels = 7;
constexpr int warp_slots = 32 / slot_lanes;

// Consecutive channels of a pixel: 16 bytes in float32, 8 in 16-bit types.
template <typename T>
struct alignas(lane_channels * sizeof(T)) Channels {
  T data[lane_channels];
};

template <typename T>
struct Map {
  T* data;
  int height, width;
  int64_t batch_stride, channel_stride, row_stride, column_stride;

  explicit Map(const MapView& view)
      : data(static_cast<T*>(view.data)),
        height(int(view.height)),
        width(int(view.width)),
        batch_stride(view.batch_stride),
        channel_stride(view.channel_stride),
        row_stride(view.row_stride),
        column_stride(view.column_stride) {}

  __device__ T* at(int64_t sample, int64_t channel, int row, int column) const {
    return data + sample * batch_stride + channel * channel_stride + row * row_stride + column * column_stride;
  }
};

// Where a slot's first pixel is; and in its residue's columns, of which there are `columns`, the `position`-th.
struct Slot {
  int row, column, position, columns;
  bool inside;
};

// A map as tiles of `down` rows of `1 << log_across` slots. The slots of a row take its columns residue by residue
// modulo the dilation.
struct Tiling {
  int height, width, dilation, residue_columns, longer_residues, residue_slots, row_slots, log_across, down,
      tiles_across;
  int tiles;
  uint64_t reciprocal;  // 2³² / residue_slots, rounded up: exact for the widths that is_plain lets through

  Tiling(int map_height, int map_width, int map_dilation, int tile_slots, int most_across)
      : height(map_height),
        width(map_width),
        dilation(map_dilation),
        residue_columns(map_width / map_dilation),
        longer_residues(map_width % map_dilation) {
    const auto divide_up = [](int dividend, int divisor) { return (dividend + divisor - 1) / divisor; };
    residue_slots = divide_up(divide_up(width, dilation), slot_pixels);
    row_slots = residue_slots * (dilation < width ? dilation : width);
    log_across = 0;
    while (2 << log_across <= most_across && 1 << log_across < row_slots) ++log_across;
    down = tile_slots >> log_across;
    tiles_across = divide_up(row_slots, 1 << log_across);
    tiles = tiles_across * divide_up(height, down);
    reciprocal = ((uint64_t(1) << 32) + residue_slots - 1) / residue_slots;
  }

  __device__ Slot slot(int tile, int index) const {
    const int across = 1 << log_across;
    const int row = tile / tiles_across * down + (index >> log_across);
    const int number = tile % tiles_across * across + (index & (across - 1));
    const int residue = int(number * reciprocal >> 32), position = (number - residue * residue_slots) * slot_pixels;
    const int columns = residue_columns + (residue < longer_residues);
    return {row, residue + position * dilation, position, columns, row < height && number < row_slots};
  }
};

__device__ inline bool within(int position, int extent) { return unsigned(position) < unsigned(extent); }

// Bit k: whether the pixel `first + k` dilations to the right of the slot's first is in the map.
__device__ inline uint32_t columns_inside(const Slot& slot, int first) {
  const int outside = -(slot.position + first), end = slot.columns + outside;
  const auto below = [](int bit) { return (1u << (bit < 0 ? 0 : bit < 31 ? bit : 31)) - 1; };
  return slot.inside ? below(end) & ~below(outside) : 0;
}

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

// Load a lane's channels, `count` of which exist, of `Count` pixels that are `step` bytes apart; zeros for pixels whose
// bit of `inside` is not set. Vector says that channels lie side by side and all exist.
template <typename T, bool Vector, int Count>
__device__ void load_words(const T* from, int64_t step, int64_t channel_stride, int count, uint32_t inside,
                           Words<T> (&to)[Count]) {
  const char* pixel = reinterpret_cast<const char*>(from);
#pragma unroll
  for (int k = 0; k < Count; ++k, pixel += step) {
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
__device__ void load_row(const T* from, int64_t step, int64_t channel_stride, int count, uint32_t inside,
                         float (&to)[Count][lane_channels]) {
  Words<T> words[Count];
  load_words<T, Vector>(from, step, channel_stride, count, inside, words);
#pragma unroll
  for (int k = 0; k < Count; ++k) unpack(words[k], to[k]);
}

__device__ inline void load_shared(const float* from, float (&to)[lane_channels]) {
  const Channels<float> loaded = *reinterpret_cast<const Channels<float>*>(from);
#pragma unroll
  for (int c = 0; c < lane_channels; ++c) to[c] = loaded.data[c];
}

// Whether lanes can load `channels` channels as vectors, whichever of them comes first.
template <typename T>
bool vectors_fit(const MapView& map, int64_t channels) {
  constexpr int64_t size = lane_channels;
  return channels % size == 0 && map.channel_stride == 1 && map.column_stride % size == 0 &&
         map.row_stride % size == 0 && map.batch_stride % size == 0 &&
         reinterpret_cast<uintptr_t>(map.data) % (size * sizeof(T)) == 0;
}

// The slots that lie side by side in a tile: where channels do, nearly square tiles read the fewest pixels.
inline int slots_across(const MapView& map) { return map.channel_stride == 1 ? 2 : 8; }

}  // namespace elsa::cuda
