// What the passes of neighborhood_attention on patches share.
#pragma once

#include "../../../cuda/patches.cuh"

namespace elsa::neighborhood_attention {

using namespace cuda;

// Thread blocks on a multiprocessor, whose 65536 registers are 128 for a thread of four, 168 of three and 255 of two.
// Products without tensor cores take more of them, and so do the two passes of the backward that sum up
// gradients.
template <typename T>
constexpr int forward_resident_blocks = tensor_cores_take<T> ? 4 : 3;
template <typename T>
constexpr int backward_resident_blocks = forward_resident_blocks<T> - 1;

// Shared memory is the bias, then the panels of each warp, then what a pass asks for beside these.
__host__ __device__ inline int bias_numbers(const PatchGrid& grid) { return divide_up(grid.bias_size, 4) * 4; }

template <typename T>
__device__ T* warp_panels(const PatchGrid& grid, int panels) {
  T* all = reinterpret_cast<T*>(shared_memory<float>() + bias_numbers(grid));
  return all + int(threadIdx.x) / warp_lanes * panels * panel_numbers<T>;
}

template <typename T>
size_t patch_shared_bytes(const PatchGrid& grid, int panels) {
  return bias_numbers(grid) * sizeof(float) + size_t(patches_warps) * panels * panel_numbers<T> * sizeof(T);
}

// What a thread block works on: along x of its grid are samples and a number of units of each, along y heads and
// slices.
struct PatchUnit {
  int sample, unit, head, slice;

  __device__ PatchUnit(int units, int slices)
      : sample(blockIdx.x / units), unit(blockIdx.x % units), head(blockIdx.y / slices), slice(blockIdx.y % slices) {}
};

// The patch of a warp in a group of a sample's.
__device__ inline int patch_of_warp(int group) { return group * patches_warps + int(threadIdx.x) / warp_lanes; }

// The sources that an output looks at.
struct Window {
  int first, end, bias;

  __device__ Window(const PatchAxis& axis, int position, int place) {
    const Reach& reach = axis.reaches[position];
    first = place + reach.first, end = place + reach.end, bias = place + reach.bias;
  }
};

// Call function(run, row, inside, places) for all that the outputs of a patch look at: a run of columns, a row of the
// map and whether there is one, and which of the pairs count.
template <bool Vector, typename Function>
__device__ void for_sources(const PatchGrid& grid, const Patch& patch, const Function& function) {
  using SourceRun = Run<Vector>;
  const Window column(grid.x, patch.column_position, patch.column);
  const Window rows[patch_rows] = {{grid.y, patch.row_positions[0], patch.rows[0]},
                                   {grid.y, patch.row_positions[1], patch.rows[1]}};
  const Places across = across_patch(column.first, column.end);
#pragma unroll 1
  for (int first = across.first; first < across.end; first += panel_pixels) {
    const SourceRun run(grid.x, patch.column_residue, first);
    PairPlaces places;
#pragma unroll
    for (int k = 0; k < SourceRun::paired_columns; ++k) {
      const int place = first + SourceRun::paired(k);
      const bool counts = patch.column_exists && place >= column.first && place < column.end;
      places.columns[k] = counts ? place - column.bias : no_pair;
    }
#pragma unroll 1
    for (int place = rows[0].first; place < rows[1].end; ++place) {
#pragma unroll
      for (int i = 0; i < patch_rows; ++i) {
        const bool counts = patch.row_exists[i] && place >= rows[i].first && place < rows[i].end;
        places.rows[i] = counts ? (place - rows[i].bias) * grid.bias_columns : no_pair;
      }
      const int row = grid.y.position(patch.row_residue, place);
      function(run, row, grid.y.has(row), places);
    }
  }
}

// A run of outputs: which columns of the map a lane's pairs belong to, or the first where there is none.
template <bool Vector>
struct OutputRun : Run<Vector> {
  int outputs[2 * pair_blocks];

  using Run<Vector>::Run;
};

// Call function(run, row, places) for all outputs that look at the sources of a patch.
template <bool Vector, typename Function>
__device__ void for_outputs(const PatchGrid& grid, const Patch& patch, const Function& function) {
  const Reach& column = grid.x.reaches[patch.column_position];
  const Places across = across_patch(patch.column + column.first_output, patch.column + column.end_output);
  const int first_row = patch.rows[0] + grid.y.reaches[patch.row_positions[0]].first_output;
  const int end_row = patch.rows[1] + grid.y.reaches[patch.row_positions[1]].end_output;
#pragma unroll 1
  for (int first = across.first; first < across.end; first += panel_pixels) {
    OutputRun<Vector> run(grid.x, patch.column_residue, first);
    PairPlaces places;
#pragma unroll
    for (int k = 0; k < Run<Vector>::paired_columns; ++k) {
      const int place = first + Run<Vector>::paired(k), position = grid.x.position(patch.column_residue, place);
      run.outputs[k] = grid.x.has(position) ? position : 0;
      const Window window(grid.x, run.outputs[k], place);
      const bool looks = grid.x.has(position) && window.first <= patch.column && patch.column < window.end;
      places.columns[k] = patch.column_exists && looks ? patch.column - window.bias : no_pair;
    }
#pragma unroll 1
    for (int place = first_row; place < end_row; ++place) {
      const int row = grid.y.position(patch.row_residue, place);
      const Window window(grid.y, row, place);
#pragma unroll
      for (int i = 0; i < patch_rows; ++i) {
        const bool looks = window.first <= patch.rows[i] && patch.rows[i] < window.end;
        places.rows[i] = patch.row_exists[i] && looks ? (patch.rows[i] - window.bias) * grid.bias_columns : no_pair;
      }
      function(run, row, places);
    }
  }
}

__device__ inline float sum_over_quad(float number) {
  number += __shfl_xor_sync(all_lanes, number, 1);
  return number + __shfl_xor_sync(all_lanes, number, 2);
}

}  // namespace elsa::neighborhood_attention
