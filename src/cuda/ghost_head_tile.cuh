// What the kernels of ghost_head share: how a map is cut among blocks, warps and lanes, and how they read it.
//
// A lane works on 4 channels × 7 pixels of a row. The pixels lie the dilation apart, so that the 7 + K − 1 pixels that
// it loads of a row of the source serve all taps of a kernel row, whatever the dilation. Eight lanes side by side make
// a slot: 32 channels of a head. 7 divides the widths of Swin's and VOLO's maps.
#pragma once

#include <device.cuh>

#include "elsa/ghost_head.h"

namespace elsa::cuda {

constexpr int slot_lanes = 8, slot_channels = lane_channels * slot_lanes;
constexpr int slot_pixels = 7, padded_pixels = 8;
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

// Where a slot's first pixel is.
struct Slot {
  int row, column;
  bool inside;
};

// A map as tiles of `down` rows of `1 << log_across` slots. The slots of a row take its columns residue by residue
// modulo the dilation.
struct Tiling {
  int height, width, dilation, residue_slots, row_slots, log_across, down, tiles_across, tiles;

  Tiling(int map_height, int map_width, int map_dilation, int tile_slots, int most_across)
      : height(map_height), width(map_width), dilation(map_dilation) {
    const auto divide_up = [](int dividend, int divisor) { return (dividend + divisor - 1) / divisor; };
    residue_slots = divide_up(divide_up(width, dilation), slot_pixels);
    row_slots = residue_slots * (dilation < width ? dilation : width);
    log_across = 0;
    while (2 << log_across <= most_across && 1 << log_across < row_slots) ++log_across;
    down = tile_slots >> log_across;
    tiles_across = divide_up(row_slots, 1 << log_across);
    tiles = tiles_across * divide_up(height, down);
  }

  __device__ Slot slot(int tile, int index) const {
    const int across = 1 << log_across;
    const int row = tile / tiles_across * down + (index >> log_across);
    const int position = tile % tiles_across * across + (index & (across - 1));
    const int column = position / residue_slots + position % residue_slots * slot_pixels * dilation;
    return {row, column, row < height && position < row_slots};
  }
};

__device__ inline bool within(int position, int extent) { return unsigned(position) < unsigned(extent); }

// Bit k: whether the pixel k dilations to the right of `column` is in the map.
template <int Count>
__device__ uint32_t columns_inside(int column, int dilation, int width) {
  uint32_t bits = 0;
#pragma unroll
  for (int k = 0; k < Count; ++k) {
    bits |= uint32_t(within(column + k * dilation, width)) << k;
  }
  return bits;
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
__device__ void load_row(const T* from, int64_t step, int64_t channel_stride, int count, uint32_t inside,
                         float (&to)[Count][lane_channels]) {
  const char* pixel = reinterpret_cast<const char*>(from);
#pragma unroll
  for (int k = 0; k < Count; ++k, pixel += step) {
    const bool load = inside >> k & 1;
    if constexpr (Vector) {
      Words<T> words{};
      if (load) words = *reinterpret_cast<const Words<T>*>(pixel);
      unpack(words, to[k]);
    } else {
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) {
        to[k][c] = load && c < count ? widened(reinterpret_cast<const T*>(pixel)[c * channel_stride]) : 0;
      }
    }
  }
}

__device__ inline void load_shared(const float* from, float (&to)[lane_channels]) {
  const Channels<float> loaded = *reinterpret_cast<const Channels<float>*>(from);
#pragma unroll
  for (int c = 0; c < lane_channels; ++c) to[c] = loaded.data[c];
}

// Shared memory's layout of a tile's attention: [tap][slot][padded_pixels], and room after each tap so that eight
// taps of a pixel, or four pixels of eight taps, lie in different banks.
__device__ __host__ constexpr int attn_pitch(int slots) { return slots * padded_pixels + padded_pixels; }

// Copy to shared memory what each pixel of the tile multiplies `Rows` rows of its taps with: its own attention; or, in
// the adjoint, that of the pixel at each tap, for the opposite tap.
template <typename T, int K, int Rows, bool Adjoint, int Slots, int Warps>
__device__ void stage_attn(const Map<const T>& attn, const Tiling& tiling, int64_t sample, int tile, int64_t head,
                           int first_row, float* to) {
  constexpr int row_elements = slot_pixels * K, steps = (row_elements + 31) / 32;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int index = warp; index < Slots; index += Warps) {
    const Slot slot = tiling.slot(tile, index);
    const T* pixels = attn.at(sample, head * K * K, slot.inside ? slot.row : 0, slot.inside ? slot.column : 0);
    // A row of taps of the slot's pixels at a time: neighbouring lanes read neighbouring taps.
#pragma unroll(K <= 7 ? Rows : 1)
    for (int r = 0; r < Rows; ++r) {
      const int i = first_row + r, row = (Adjoint ? i - K / 2 : 0) * tiling.dilation;
      const bool row_inside = slot.inside && i < K && within(slot.row + row, tiling.height);
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        const int element = step * 32 + lane, pixel = element / K, j = element % K;
        const int column = (Adjoint ? pixel + j - K / 2 : pixel) * tiling.dilation;
        const int tap = Adjoint ? (K - 1 - i) * K + K - 1 - j : i * K + j;
        if (element < row_elements) {
          const bool inside = row_inside && within(slot.column + column, tiling.width);
          const T* from = pixels + row * attn.row_stride + column * attn.column_stride + tap * attn.channel_stride;
          to[(r * K + j) * attn_pitch(Slots) + index * padded_pixels + pixel] = inside ? widened(*from) : 0;
        }
      }
    }
  }
}

// A ghost matrix on the device: float32 or of the maps' type.
template <typename T>
struct Matrix {
  const void* data;
  bool is_float32;
  int64_t batch_stride;

  explicit Matrix(const MatrixView& view)
      : data(view.data), is_float32(view.dtype == DType::float32), batch_stride(view.batch_stride) {}

  __device__ float at(int64_t index) const {
    return is_float32 ? static_cast<const float*>(data)[index] : widened(static_cast<const T*>(data)[index]);
  }
};

// Copy 32 channels of a ghost matrix to shared memory, [tap][channel]; zeros after the last of `count`.
template <typename T, int K, bool Adjoint, int Threads>
__device__ void stage_matrix(const Matrix<T>& matrix, int64_t sample, int64_t first_channel, int count, float* to) {
  constexpr int taps = K * K;
  for (int element = threadIdx.x; element < taps * slot_channels; element += Threads) {
    const int channel = element / taps, tap = element % taps;
    const int64_t from = sample * matrix.batch_stride + (first_channel + channel) * taps + tap;
    to[(Adjoint ? taps - 1 - tap : tap) * slot_channels + channel] = channel < count ? matrix.at(from) : 0;
  }
}

// Whether lanes can load the channels of a head as vectors.
template <typename T>
bool vectors_fit(const MapView& map, const GhostHeadShape& shape) {
  constexpr int64_t size = lane_channels;
  return shape.head_channels() % size == 0 && map.channel_stride == 1 && map.column_stride % size == 0 &&
         map.row_stride % size == 0 && map.batch_stride % size == 0 &&
         reinterpret_cast<uintptr_t>(map.data) % (size * sizeof(T)) == 0;
}

}  // namespace elsa::cuda
