// ghost_head on the matrix units: what attention alone does, for 16-bit types. The products are exact and the sums are
// float32, as everywhere; only the order of the sums is another.
//
// Within a row the taps are a band: out[channel][pixel] = Σ_source value[channel][source] · attn[source −
// pixel][pixel]. Two neighbouring pixels need K + 1 sources. A product of add_product takes two pixels of each of a
// warp's four slots, as its eight columns, and four sources of each slot, as its sixteen rows, with zeros where the
// slots differ. Thus lane 4·g + t gives 4 channels of the sources of slot t and gets the sums of these channels and of
// the pixels of slot t, as it would without the matrix units; what it gives of attention is that of one pixel, or
// zeros.
#pragma once

#include "ghost_head_tile.cuh"

namespace elsa::cuda {

// Products for a row of taps of two pixels, the sources that a lane gives them, and all that it needs of a row.
template <int K>
constexpr int band_steps = (K + 4) / 4;
template <int K>
constexpr int band_sources = 4 * band_steps<K>;
template <int K>
constexpr int band_pairs = (padded_pixels + band_sources<K>) / 2 - 1;

// Shared memory's layout of a tile's attention: [row of taps][slot][padded_pixels][band_sources], where an odd pixel's
// taps start at 1; a slot's room at the end is against bank conflicts. After all of them, zeros for a row.
template <int K>
constexpr int band_pitch = padded_pixels * band_sources<K> + 16;
template <int K, int Slots>
constexpr int band_elements = (K * Slots + 1) * band_pitch<K>;

// A pixel's attention in a row of taps.
template <int K>
struct alignas(band_steps<K> % 2 == 0 ? 16 : 8) BandColumn {
  uint32_t data[2 * band_steps<K>];
};

template <typename T, int K, int Slots, int Threads>
__device__ void clear_band(T* band) {
  for (int element = passing_thread(); element < band_elements<K, Slots>; element += Threads) band[element] = T();
}

template <typename T, int K, bool Adjoint, int Slots, int Warps>
__device__ void stage_band(const Map<const T>& attn, const Tiling& tiling, int64_t sample, int tile, int64_t head,
                           T* band) {
  stage_attn<T, K, K, (K <= 7 ? K : 1), Adjoint, Slots, Warps>(
      attn, tiling, sample, tile, head, 0, [&](int row, int column, int slot, int pixel, T number) {
        band[(row * Slots + slot) * band_pitch<K> + pixel * band_sources<K> + pixel % 2 + column] = number;
      });
}

// load_words with neighbouring pixels of a channel in a word, as the matrix units take them; zeros after the last.
template <typename T, bool Vector, int Count, int Pairs>
__device__ void load_pairs(const T* from, int64_t step, int64_t channel_stride, int count, uint32_t inside,
                           uint32_t (&to)[Pairs][lane_channels]) {
  Words<T> pixels[Count];
  load_words<T, Vector>(from, step, channel_stride, count, inside, pixels);
#pragma unroll
  for (int p = 0; p < Pairs; ++p) {
#pragma unroll
    for (int c = 0; c < lane_channels; c += 2) {
      const uint32_t left = 2 * p < Count ? pixels[2 * p].data[c / 2] : 0;
      const uint32_t right = 2 * p + 1 < Count ? pixels[2 * p + 1].data[c / 2] : 0;
      to[p][c] = __byte_perm(left, right, 0x5410);
      to[p][c + 1] = __byte_perm(left, right, 0x7632);
    }
  }
}

// Add attention times a row of the source to the lane's sums. `band` is what the lane gives for the first two pixels.
template <typename T, int K>
__device__ void add_band(const uint32_t (&source)[band_pairs<K>][lane_channels], const T* band,
                         float (&sum)[padded_pixels][lane_channels]) {
#pragma unroll
  for (int p = 0; p < padded_pixels; p += 2, band += 2 * band_sources<K>) {
    const auto attn = *reinterpret_cast<const BandColumn<K>*>(band);
#pragma unroll
    for (int c = 0; c < lane_channels; c += 2) {
      float pair[] = {sum[p][c], sum[p + 1][c], sum[p][c + 1], sum[p + 1][c + 1]};
#pragma unroll
      for (int step = 0; step < band_steps<K>; ++step) {
        const auto& first = source[p / 2 + 2 * step];
        const auto& second = source[p / 2 + 2 * step + 1];
        add_product<T>({first[c], first[c + 1], second[c], second[c + 1]},
                       {attn.data[2 * step], attn.data[2 * step + 1]}, pair);
      }
      sum[p][c] = pair[0], sum[p + 1][c] = pair[1], sum[p][c + 1] = pair[2], sum[p + 1][c + 1] = pair[3];
    }
  }
}

}  // namespace elsa::cuda
