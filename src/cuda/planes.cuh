// What the kernels share that work on the matrix units: tiles of 16 × 16 pixels × 32 channels in shared memory, a plane
// for each channel. Neighbours in a tile are pixels that lie the dilation apart.
#pragma once

#include "slots.cuh"

namespace elsa::cuda {

constexpr int planes_threads = 128, planes_warps = planes_threads / 32;
constexpr int plane_side = 16, group_pixels = 8, groups = plane_side / group_pixels;

// A plane of a tile with what K taps reach beside it, and of one without. A row of the former has 16 pixels from the
// first of each group on.
template <int K>
constexpr int source_rows = plane_side + K - 1;
constexpr int source_columns = (groups + 1) * group_pixels;
// An odd number of 16 bytes: the same row of eight planes lies in different banks.
template <int K>
constexpr int source_pitch = source_rows<K> * source_columns + 8;
constexpr int plane_pitch = plane_side * plane_side + 8;

// The channels 4·l, …, 4·l + 3 are 8 planes apart, so that lanes l store them to different banks.
__device__ inline int channel_of_plane(int plane) { return plane % slot_lanes * lane_channels + plane / slot_lanes; }

// A map as tiles, residue by residue modulo the dilation.
struct Lattice {
  int height, width, dilation, tiles_across, tiles_down, residues_across, tiles;

  Lattice(int map_height, int map_width, int map_dilation)
      : height(map_height), width(map_width), dilation(map_dilation) {
    const auto blocks = [&](int extent) { return ((extent - 1) / dilation + plane_side) / plane_side; };
    tiles_across = blocks(width), tiles_down = blocks(height);
    residues_across = dilation < width ? dilation : width;
    tiles = tiles_across * tiles_down * residues_across * (dilation < height ? dilation : height);
  }
};

// One of them: its first pixel, and how many rows and columns from there on the map has.
struct LatticeTile {
  int row, column, rows, columns, rows_before, columns_before;

  __device__ LatticeTile(const Lattice& lattice, int index) {
    const int across = index % lattice.tiles_across, down = index / lattice.tiles_across % lattice.tiles_down;
    const int residue = index / lattice.tiles_across / lattice.tiles_down;
    rows_before = down * plane_side, columns_before = across * plane_side;
    row = residue / lattice.residues_across + rows_before * lattice.dilation;
    column = residue % lattice.residues_across + columns_before * lattice.dilation;
    rows = (lattice.height - row + lattice.dilation - 1) / lattice.dilation;
    columns = (lattice.width - column + lattice.dilation - 1) / lattice.dilation;
  }

  // Whether the pixel that many rows and columns from the first is in the map.
  __device__ bool has_row(int y) const { return y >= -rows_before && y < rows; }
  __device__ bool has_column(int x) const { return x >= -columns_before && x < columns; }
};

// Copy planes of `Side` × `Side` pixels, which begin Margin rows and columns before the tile, to shared memory; zeros
// outside the map, and for channels after the last of `count`. Each thread takes two neighbouring columns of 4
// channels.
template <typename T, int Side, int Margin, int Columns, int Pitch, bool Vector>
__device__ void stage_planes(const Map<const T>& map, int dilation, const LatticeTile& tile, int sample,
                             int64_t first_channel, int count, T* planes) {
  constexpr int pairs = planes_threads / slot_lanes;
  const int thread = passing_thread(), lane = Vector ? thread % slot_lanes : thread / pairs;
  const int pair = Vector ? thread / slot_lanes : thread % pairs, x = 2 * pair - Margin;
  const int lane_count = count - lane * lane_channels;
  if (2 * pair >= Columns) return;
  uint32_t columns_inside = 0;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const bool inside = lane_count > 0 && 2 * pair + k < Side && tile.has_column(x + k);
    columns_inside |= uint32_t(inside) << k;
  }
  const int64_t step = dilation * map.column_stride * int(sizeof(T)), next_row = dilation * map.row_stride;
  const T* from =
      map.at(sample, first_channel + lane * lane_channels, tile.row - Margin * dilation, tile.column + x * dilation);
  uint32_t* to = reinterpret_cast<uint32_t*>(planes + lane * Pitch) + pair;
#pragma unroll 4
  for (int row = 0; row < Side; ++row, from += next_row, to += Columns / 2) {
    Words<T> pixels[2];
    load_words<T, Vector>(from, step, map.channel_stride, lane_count, tile.has_row(row - Margin) ? columns_inside : 0,
                          pixels);
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      to[c * slot_lanes * Pitch / 2] =
          __byte_perm(pixels[0].data[c / 2], pixels[1].data[c / 2], c % 2 == 0 ? 0x5410 : 0x7632);
    }
  }
}

// The planes of the sources of a tile.
template <typename T, int K, bool Vector>
__device__ void stage_sources(const Map<const T>& map, int dilation, const LatticeTile& tile, int sample,
                              int64_t first_channel, int count, T* planes) {
  stage_planes<T, source_rows<K>, K / 2, source_columns, source_pitch<K>, Vector>(map, dilation, tile, sample,
                                                                                  first_channel, count, planes);
}

}  // namespace elsa::cuda
