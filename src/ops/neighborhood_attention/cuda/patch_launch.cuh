// The launches of neighborhood_attention's passes on patches.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "../../../cuda/dispatch.cuh"
#include "passes.h"
#include "patch_backward.cuh"
#include "patch_forward.cuh"

namespace elsa::neighborhood_attention {

using namespace cuda;

// The room for the reaches of both axes, in float32 numbers. It comes after what a pass keeps for itself.
inline int64_t reach_numbers(const LocalShape& shape) {
  return (shape.height + shape.width) * int64_t(sizeof(Reach) / sizeof(float));
}

// The room for the statistics, likewise.
inline int64_t statistics_numbers(const LocalShape& shape) {
  return 2 * shape.batch * shape.heads * shape.height * shape.width;
}

template <typename Pass>
PatchGrid patch_grid(const Pass& op, void* reaches) {
  const LocalShape& shape = op.shape;
  Reach* rows = static_cast<Reach*>(reaches);
  const auto axis = [](const Neighbourhood& axis, Reach* reaches, int64_t length) {
    return PatchAxis{reaches, int(length), int(axis.dilation), axis.border == Border::circular};
  };
  return {axis(shape.y, rows, shape.height),
          axis(shape.x, rows + shape.height, shape.width),
          PatchTiling(shape),
          op.bias.data,
          op.bias.dtype == DType::float32,
          op.bias.batch_stride,
          int(op.bias.columns(shape)),
          int(op.bias.head_size(shape)),
          int(shape.heads),
          int(shape.channels),
          int(op.value_channels),
          slices_of(shape.channels),
          slices_of(op.value_channels),
          float(shape.scale),
          float(shape.scale) * log2_e};
}

template <typename Pass>
void launch_reaches(const Pass& op, const PatchGrid& grid, void* stream) {
  const LocalShape& shape = op.shape;
  const ReachPass pass{{shape.y, shape.x},
                       {shape.height, shape.width},
                       {const_cast<Reach*>(grid.y.reaches), const_cast<Reach*>(grid.x.reaches)},
                       op.bias.relative};
  launch(reach_kernel, Grid{2, 1, 1, reach_threads, 0}, stream, pass);
}

// Shared memory of the pass of outputs, which has the most.
template <typename T>
size_t outputs_shared_bytes(const PatchGrid& grid) {
  return patch_shared_bytes<T>(grid, backward_panels(grid)) + patches_warps * BiasSums::numbers(grid) * sizeof(float);
}

// Whether the kernels on patches take a call.
template <typename T>
bool patches_take(const Forward& op) {
  const PatchGrid grid = patch_grid(op, nullptr);
  return fit_patches(op.shape, op.query.dtype, std::initializer_list{op.query, op.key, op.value, op.out}) &&
         op.shape.heads * grid.value_slices <= most_blocks_yz &&
         patch_shared_bytes<T>(grid, forward_panels(grid)) <= most_shared_bytes;
}

template <typename T>
bool patches_take(const Backward& op) {
  const PatchGrid grid = patch_grid(op, nullptr);
  const auto maps = std::initializer_list{op.query, op.key, op.value, op.grad, op.grad_query, op.sum_key, op.sum_value};
  return fit_patches(op.shape, op.query.dtype, maps) &&
         op.shape.heads * std::max(grid.query_slices, grid.value_slices) <= most_blocks_yz &&
         outputs_shared_bytes<T>(grid) <= most_shared_bytes;
}

template <typename T>
void patch_forward(const Forward& op, void* stream) {
  const PatchGrid grid = patch_grid(op, op.workspace);
  launch_reaches(op, grid, stream);
  const PatchForward<T> arguments{grid, Map<const T>(op.query), Map<const T>(op.key), Map<const T>(op.value),
                                  Map<T>(op.out)};
  const Grid blocks{op.shape.batch * grid.tiling.groups(), op.shape.heads * grid.value_slices, 1, patches_threads,
                    patch_shared_bytes<T>(grid, forward_panels(grid))};
  const bool vectors = vectors_fit<T>(op.query, op.shape.channels) && vectors_fit<T>(op.key, op.shape.channels) &&
                       vectors_fit<T>(op.value, op.value_channels) && vectors_fit<T>(op.out, op.value_channels);
  choose(vectors, [&](auto vector) { launch(forward_patch_kernel<T, vector.value>, blocks, stream, arguments); });
}

template <typename T>
void patch_backward(const Backward& op, void* stream) {
  float* workspace = static_cast<float*>(op.workspace);
  const PatchGrid grid = patch_grid(op, workspace + statistics_numbers(op.shape));
  launch_reaches(op, grid, stream);
  const int groups = grid.tiling.groups(), units = op.partial_bias ? int(op.chunks) : groups;
  const PatchBackward<T> arguments{grid,
                                   Map<const T>(op.query),
                                   Map<const T>(op.key),
                                   Map<const T>(op.value),
                                   Map<const T>(op.grad),
                                   Map<T>(op.grad_query),
                                   Map<float>(op.sum_key),
                                   Map<float>(op.sum_value),
                                   static_cast<float*>(op.partial_bias),
                                   reinterpret_cast<Statistics*>(workspace),
                                   units};
  const bool vectors = vectors_fit<T>(op.query, op.shape.channels) && vectors_fit<T>(op.key, op.shape.channels) &&
                       vectors_fit<T>(op.value, op.value_channels) && vectors_fit<T>(op.grad, op.value_channels) &&
                       (!op.grad_query.data || vectors_fit<T>(op.grad_query, op.shape.channels));
  const size_t shared_bytes = patch_shared_bytes<T>(grid, backward_panels(grid));
  const int64_t heads = op.shape.heads, all_groups = op.shape.batch * groups;
  choose(vectors, [&](auto vector) {
    launch(statistics_patch_kernel<T, vector.value>, Grid{all_groups, heads, 1, patches_threads, shared_bytes}, stream,
           arguments);
    if (op.grad_query.data || op.partial_bias) {
      const int64_t slices = op.grad_query.data ? grid.query_slices : 1;
      launch(outputs_patch_kernel<T, vector.value>,
             Grid{op.shape.batch * units, heads * slices, 1, patches_threads, outputs_shared_bytes<T>(grid)}, stream,
             arguments);
    }
    if (op.sum_key.data || op.sum_value.data) {
      const int64_t slices = std::max(grid.query_slices, grid.value_slices);
      launch(sources_patch_kernel<T, vector.value>, Grid{all_groups, heads * slices, 1, patches_threads, shared_bytes},
             stream, arguments);
    }
  });
}

}  // namespace elsa::neighborhood_attention
