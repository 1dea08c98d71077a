// Local attention in patches: a warp has 2 × 8 pixels that lie the dilation apart, one side of the pairs of queries and
// keys, and meets all that these look at, or that look at these, in runs of 16 neighbours of a row. Borders are numbers
// in tables, one for each axis.
//
// A place is a pixel's number among those of its residue; places outside the map exist where the border is circular.
#pragma once

#include <cmath>

#include "../core/local_attention.h"
#include "panels.cuh"

namespace elsa::cuda {

constexpr int patches_warps = 4, patches_threads = patches_warps * warp_lanes;
constexpr int patch_rows = 2, patch_columns = panel_pixels / patch_rows;

// What the pixel at a place has to do with other places, all counted from its own. As an output it looks at the sources
// from `first` to before `end`, and the bias of the source at place c is number c − bias. As a source it is looked at
// by outputs from `first_output` to before `end_output`, perhaps not by all of them.
struct Reach {
  int first, end, bias, first_output, end_output;
};

// One axis of the map.
struct PatchAxis {
  const Reach* reaches;  // of every pixel
  int length, dilation;
  bool circular;

  __device__ int places(int residue) const { return (length - residue + dilation - 1) / dilation; }
  __device__ bool has(int position) const { return within(position, length); }
  __device__ int position(int residue, int place) const {
    int position = residue + place * dilation;
    if (circular && !has(position)) {
      position %= length;
      if (position < 0) position += length;
    }
    return position;
  }
};

// The table of an axis, by one thread block for each.
struct ReachPass {
  Neighbourhood axes[2];
  int64_t lengths[2];
  Reach* reaches[2];
  bool relative;
};

constexpr int reach_threads = 256;

static __global__ void __launch_bounds__(reach_threads, 1) reach_kernel(const ReachPass op) {
  const Neighbourhood axis = op.axes[blockIdx.x];
  const int length = int(op.lengths[blockIdx.x]), dilation = int(axis.dilation), K = int(axis.kernel_size);
  Reach* reaches = op.reaches[blockIdx.x];
  for (int i = threadIdx.x; i < length; i += reach_threads) {
    const Taps taps = axis.taps(i, length);
    const int offset = int(taps.offset);
    reaches[i] = {offset + int(taps.begin), offset + int(taps.end), op.relative ? 1 - K : offset, K / 2 + 1 - K,
                  K / 2 + 1};
  }
  if (axis.border == Border::circular) return;
  __syncthreads();
  for (int i = threadIdx.x; i < length; i += reach_threads) {
    const int place = i / dilation, places = (length - i % dilation + dilation - 1) / dilation;
    // Beyond these no output sees the source, whatever the border.
    const int farthest = K + int(axis.window_stride);
    int first = place > farthest ? -farthest : -place, end = places - place < farthest ? places - place : farthest;
    while (place + first < places && reaches[i + first * dilation].end + first <= 0) ++first;
    while (end > first && reaches[i + (end - 1) * dilation].first + end - 1 > 0) --end;
    reaches[i].first_output = first, reaches[i].end_output = end;
  }
}

// A map as patches, one residue of rows and columns modulo the dilation after the other. The patches of a thread block
// lie below each other: much of what they look at is the same.
struct PatchTiling {
  int patches_down, patches_across, residues_across, patches;

  explicit PatchTiling(const LocalShape& shape) {
    const auto along = [](int64_t length, int64_t dilation, int side) {
      return int(divide_up(divide_up(length, dilation), int64_t(side)));
    };
    patches_down = along(shape.height, shape.y.dilation, patch_rows);
    patches_across = along(shape.width, shape.x.dilation, patch_columns);
    residues_across = int(smaller(shape.x.dilation, shape.width));
    patches = patches_down * patches_across * residues_across * int(smaller(shape.y.dilation, shape.height));
  }

  __host__ __device__ int groups() const { return divide_up(patches, patches_warps); }
};

// What all kernels on patches are given.
struct PatchGrid {
  PatchAxis y, x;
  PatchTiling tiling;
  const void* bias;
  bool bias_is_float32;
  int64_t bias_batch_stride;
  int bias_columns, bias_size, heads, query_channels, value_channels, query_slices, value_slices;
  float scale, logit_scale;  // logits are in units of ln 2, for exp2
};

constexpr float log2_e = 1.44269504f;

// A head's bias as float32 in shared memory, zeros where there is none. The whole thread block has to wait for it.
template <typename T>
__device__ void stage_bias(const PatchGrid& a, int sample, int head, float* to) {
  const int64_t first = sample * a.bias_batch_stride + int64_t(head) * a.bias_size;
  for (int i = threadIdx.x; i < a.bias_size; i += patches_threads) {
    float number = 0;
    if (a.bias) {
      number = a.bias_is_float32 ? static_cast<const float*>(a.bias)[first + i]
                                 : widened(static_cast<const T*>(a.bias)[first + i]);
    }
    to[i] = number * log2_e;
  }
}

// A lane has two rows of the patch, and of all of a row's pixels that at column g = lane / 4. Outside the map it has
// the last ones inside once more, and `exists` says so.
struct Patch {
  int row_residue, column_residue;
  int rows[patch_rows], column;  // places
  bool row_exists[patch_rows], column_exists;
  int row_positions[patch_rows], column_position;

  // What the whole patch is, for copy_patch.
  int first_row, first_column, places_down, places_across;

  __device__ Patch(const PatchTiling& tiling, const PatchAxis& y, const PatchAxis& x, int index) {
    const int strip = index / tiling.patches_down, residue = strip / tiling.patches_across;
    row_residue = residue / tiling.residues_across, column_residue = residue % tiling.residues_across;
    first_row = index % tiling.patches_down * patch_rows, first_column = strip % tiling.patches_across * patch_columns;
    places_down = y.places(row_residue), places_across = x.places(column_residue);
#pragma unroll
    for (int i = 0; i < patch_rows; ++i) {
      row_exists[i] = first_row + i < places_down;
      rows[i] = row_exists[i] ? first_row + i : places_down - 1;
      row_positions[i] = row_residue + rows[i] * y.dilation;
    }
    const int own = first_column + lane_index() / 4;
    column_exists = own < places_across, column = column_exists ? own : places_across - 1;
    column_position = column_residue + column * x.dilation;
  }
};

// Copy all slices of a patch to panels, one after another.
template <typename T, bool Vector>
__device__ void copy_patch(const HeadMap<const T>& map, const PatchAxis& y, const PatchAxis& x, const Patch& patch,
                           int slices, T* panels) {
  const auto place_down = [&](int k) { return patch.first_row + copied_pixel<Vector>(k) / patch_columns; };
  const auto place_across = [&](int k) { return patch.first_column + copied_pixel<Vector>(k) % patch_columns; };
  const auto row = [&](int k) { return patch.row_residue + place_down(k) * y.dilation; };
  const auto column = [&](int k) { return patch.column_residue + place_across(k) * x.dilation; };
  const auto inside = [&](int k) { return place_down(k) < patch.places_down && place_across(k) < patch.places_across; };
#pragma unroll 1
  for (int slice = 0; slice < slices; ++slice) {
    copy_pixels<T, Vector>(map, slice, row, column, inside, panels + slice * panel_numbers<T>);
  }
}

// Store a lane's sums, each row times its factor, to a slice of the channels of a patch.
template <bool Vector, typename To>
__device__ void store_patch(const ChannelSums& sum, const float (&factors)[patch_rows], const Patch& patch,
                            const HeadMap<To>& map, int slice) {
#pragma unroll
  for (int i = 0; i < patch_rows; ++i) {
    if (!patch.row_exists[i] || !patch.column_exists) continue;
#pragma unroll
    for (int b = 0; b < channel_blocks; ++b) {
      const int channel = slice * slice_channels + 8 * b + lane_index() % 4 * 2, count = map.channels - channel;
      if (count <= 0) continue;
      To* to = map.template at<Vector>(channel, patch.row_positions[i], patch.column_position);
      const Pair<To> pair{{rounded<To>(sum[b][2 * i] * factors[i]), rounded<To>(sum[b][2 * i + 1] * factors[i])}};
      if constexpr (Vector) {
        *reinterpret_cast<Pair<To>*>(to) = pair;
      } else {
        to[0] = pair.data[0];
        if (count > 1) to[map.channel_stride] = pair.data[1];
      }
    }
  }
}

// The places from `first` to before `end`.
struct Places {
  int first, end;
};

// What the lanes that have the first and the last column of a patch say of it.
__device__ inline Places across_patch(int first, int end) {
  return {__shfl_sync(all_lanes, first, 0), __shfl_sync(all_lanes, end, warp_lanes - 1)};
}

// 16 neighbouring columns, and those of their pixels that a lane copies.
template <bool Vector>
struct Run {
  int first;
  int columns[lane_quads];
  bool inside[lane_quads];

  __device__ Run(const PatchAxis& x, int residue, int place) : first(place) {
#pragma unroll
    for (int k = 0; k < lane_quads; ++k) {
      columns[k] = x.position(residue, place + copied_pixel<Vector>(k));
      inside[k] = x.has(columns[k]);
    }
  }

  // The k-th of the columns that a lane has pairs with.
  __device__ static int paired(int k) { return lane_index() % 4 * 2 + k / 2 * 8 + k % 2; }
  static constexpr int paired_columns = 2 * pair_blocks;
};

// Copy a slice of a run to a panel, zeros outside the map. Others may have read the panel before, and will.
template <typename T, bool Vector>
__device__ void copy_run(const HeadMap<const T>& map, const Run<Vector>& run, int row, bool row_inside, int slice,
                         T* panel) {
  __syncwarp();
  copy_pixels<T, Vector>(
      map, slice, [&](int) { return row; }, [&](int k) { return run.columns[k]; },
      [&](int k) { return row_inside && run.inside[k]; }, panel);
  __syncwarp();
}

// The products of a patch and a run of a row, over all slices. The last of them stays in the panel.
template <typename T, bool Vector>
__device__ void patch_products(const T* patch, const HeadMap<const T>& map, const Run<Vector>& run, int row,
                               bool row_inside, int slices, T* panel, PairSums& sum) {
#pragma unroll
  for (int k = 0; k < 4 * pair_blocks; ++k) sum[k / 4][k % 4] = 0;
#pragma unroll 1
  for (int slice = 0; slice < slices; ++slice) {
    copy_run<T, Vector>(map, run, row, row_inside, slice, panel);
    add_pairs<T>(patch + slice * panel_numbers<T>, panel, sum);
  }
}

// Where the bias of a pair is: the sum of a number for its row and one for its column. It is negative where the pair
// does not count.
constexpr int no_pair = -(1 << 28);

struct PairPlaces {
  int rows[patch_rows], columns[2 * pair_blocks];

  __device__ int at(int k) const { return rows[k % 4 / 2] + columns[k / 4 * 2 + k % 2]; }
};

// Make logits of products: −∞ for pairs that do not count.
__device__ inline void finish_logits(const PairPlaces& places, const float* bias, float scale, PairSums& sum) {
#pragma unroll
  for (int k = 0; k < 4 * pair_blocks; ++k) {
    const int at = places.at(k);
    float& logit = sum[k / 4][k % 4];
    logit = at < 0 ? -INFINITY : logit * scale + bias[at];
  }
}

// Whether sizes and dtype are what the kernels on patches can take: sums in float32, and 32 bits for pixels and for
// bytes along a row.
template <typename Maps>
bool fit_patches(const LocalShape& shape, DType dtype, const Maps& maps) {
  constexpr int64_t most_pixels = 1 << 30, most_length = 1 << 24, most_taps = 64;
  bool fits = dtype != DType::float64 && larger(shape.height, shape.width) <= most_length &&
              larger(shape.y.kernel_size, shape.x.kernel_size) <= most_taps &&
              shape.batch <= most_pixels / (shape.height * shape.width) && shape.heads <= most_blocks_yz;
  for (const MapView& map : maps) fits = fits && map.column_stride <= INT32_MAX / size_of(DType::float32);
  return fits;
}

}  // namespace elsa::cuda
