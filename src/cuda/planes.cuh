// What the kernels on the tensor cores share: tiles of 16 × 16 pixels × 32 channels in shared memory, a plane for each
// channel. Neighbours in a tile are pixels that lie the dilation apart.
#pragma once

#include "strips.cuh"

namespace elsa::cuda {

constexpr int planes_threads = 128, planes_warps = planes_threads / warp_lanes;

// The 16 × 8 matrix of sums of an mma has 8 neighbouring pixels of a row of a tile along one of its sides: a fragment.
constexpr int plane_side = 16, fragment_pixels = 8, row_fragments = plane_side / fragment_pixels;

// The numbers after each plane that nobody reads. They make a plane an odd number of 16 bytes long: so the same row of
// eight planes, which ldmatrix reads at once, lies in different banks.
constexpr int plane_padding = 8;

// The planes of a tile: `side` × `side` pixels that begin `halo` rows and columns before the tile's, in rows of
// `columns` numbers.
struct TilePlanes {
  static constexpr int side = plane_side, halo = 0, columns = plane_side;
  static constexpr int pitch = side * columns + plane_padding;  // from plane to plane
};

// The planes of what K × K taps reach from a tile. A row has a fragment more than the tile's: the 8 pixels of the last
// fragment reach 16 columns.
template <int K>
struct SourcePlanes {
  static constexpr int side = plane_side + K - 1, halo = K / 2, columns = (row_fragments + 1) * fragment_pixels;
  static constexpr int pitch = side * columns + plane_padding;
};

// The channel of a plane. Lane l of a strip has the channels 4·l, …, 4·l + 3; it stores them to the planes l, l + 8,
// l + 16 and l + 24, so that the eight lanes of a strip store to different banks.
__device__ inline int channel_of_plane(int plane) { return plane % strip_lanes * lane_channels + plane / strip_lanes; }

// A map as tiles of 16 × 16 pixels that lie the dilation apart, one residue of rows and columns modulo the dilation
// after the other.
struct PlaneTiling {
  int height, width, dilation, tiles_across, tiles_down, residues_across, tiles;

  PlaneTiling(int map_height, int map_width, int map_dilation)
      : height(map_height), width(map_width), dilation(map_dilation) {
    const auto tiles_along = [&](int extent) { return divide_up(divide_up(extent, dilation), plane_side); };
    tiles_across = tiles_along(width), tiles_down = tiles_along(height);
    residues_across = dilation < width ? dilation : width;
    tiles = tiles_across * tiles_down * residues_across * (dilation < height ? dilation : height);
  }
};

// One of them: its first pixel, and how many rows and columns of its residue the map has from there on, and before.
struct PlaneTile {
  int row, column, rows, columns, rows_before, columns_before;

  __device__ PlaneTile(const PlaneTiling& tiling, int index) {
    const int across = index % tiling.tiles_across, down = index / tiling.tiles_across % tiling.tiles_down;
    const int residue = index / tiling.tiles_across / tiling.tiles_down;
    rows_before = down * plane_side, columns_before = across * plane_side;
    row = residue / tiling.residues_across + rows_before * tiling.dilation;
    column = residue % tiling.residues_across + columns_before * tiling.dilation;
    // Written out: nvcc 13.0 makes two instructions more of divide_up here.
    rows = (tiling.height - row + tiling.dilation - 1) / tiling.dilation;
    columns = (tiling.width - column + tiling.dilation - 1) / tiling.dilation;
  }

  // Whether the pixel that many rows and columns from the first is in the map.
  __device__ bool has_row(int y) const { return y >= -rows_before && y < rows; }
  __device__ bool has_column(int x) const { return x >= -columns_before && x < columns; }
};

// Copy planes to shared memory; zeros outside the map, and for channels after the last of `count`. Each thread takes
// two neighbouring columns of 4 channels.
template <typename Planes, bool Vector, typename T>
__device__ void stage_planes(const Map<const T>& map, int dilation, const PlaneTile& tile, int sample,
                             int64_t first_channel, int count, T* planes) {
  constexpr int pairs = planes_threads / strip_lanes, halo = Planes::halo;
  const int thread = reread_thread_index(), lane = Vector ? thread % strip_lanes : thread / pairs;
  const int pair = Vector ? thread / strip_lanes : thread % pairs, x = 2 * pair - halo;
  const int lane_count = count - lane * lane_channels;
  if (2 * pair >= Planes::columns) return;
  uint32_t columns_inside = 0;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const bool inside = lane_count > 0 && 2 * pair + k < Planes::side && tile.has_column(x + k);
    columns_inside |= uint32_t(inside) << k;
  }
  const int64_t byte_stride = dilated_stride(map, dilation), next_row = dilation * map.row_stride;
  const T* from =
      map.at(sample, first_channel + lane * lane_channels, tile.row - halo * dilation, tile.column + x * dilation);
  uint32_t* to = reinterpret_cast<uint32_t*>(planes + lane * Planes::pitch) + pair;
#pragma unroll 4
  for (int row = 0; row < Planes::side; ++row, from += next_row, to += Planes::columns / 2) {
    Words<T> pixels[2];
    load_words<T, Vector>(from, byte_stride, map.channel_stride, lane_count,
                          tile.has_row(row - halo) ? columns_inside : 0, pixels);
#pragma unroll
    for (int c = 0; c < lane_channels; ++c) {
      // A word of the plane: channel c of both pixels.
      constexpr uint32_t lower_halves = 0x5410, upper_halves = 0x7632;
      to[c * strip_lanes * Planes::pitch / 2] =
          __byte_perm(pixels[0].data[c / 2], pixels[1].data[c / 2], c % 2 == 0 ? lower_halves : upper_halves);
    }
  }
}

}  // namespace elsa::cuda
