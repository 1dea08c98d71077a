// The backward of neighborhood_attention on patches, in three passes, all of which compute logits anew: the statistics
// of every output's softmax; sums over what an output looks at, which are the gradients of query and bias; sums over
// what looks at a source, which are those of key and value.
#pragma once

#include "patch_forward.cuh"

namespace elsa::neighborhood_attention {

using namespace cuda;

// What the gradient of a logit needs beside the pair: attn = exp2(logit − lse), gradient = attn · (grad · value −
// mean).
struct alignas(8) Statistics {
  float lse, mean;
};

template <typename T>
struct PatchBackward {
  PatchGrid grid;
  Map<const T> query, key, value, grad_out;
  Map<T> grad_query;
  Map<float> sum_key, sum_value;
  float* partial_bias;
  Statistics* statistics;  // [batch][heads][height][width]
  int units;               // of a sample, among which the pass of outputs deals out its groups of patches

  __device__ Statistics* statistics_of(int sample, int head) const {
    return statistics + (int64_t(sample) * grid.heads + head) * grid.y.length * grid.x.length;
  }
};

// Of a warp: the queries and the gradients of its patch, or keys and values, and a slice of both others of a run.
__host__ __device__ inline int backward_panels(const PatchGrid& grid) {
  return grid.query_slices + grid.value_slices + 2;
}

// A warp's panels, and the head in all maps.
template <typename T>
struct BackwardWarp {
  HeadMap<const T> query, key, value, grad_out;
  T *first_patch, *second_patch, *first_panel, *second_panel;

  __device__ BackwardWarp(const PatchBackward<T>& a, int sample, int head)
      : query(a.query, sample, head, a.grid.query_channels),
        key(a.key, sample, head, a.grid.query_channels),
        value(a.value, sample, head, a.grid.value_channels),
        grad_out(a.grad_out, sample, head, a.grid.value_channels),
        first_patch(warp_panels<T>(a.grid, backward_panels(a.grid))),
        second_patch(first_patch + a.grid.query_slices * panel_numbers<T>),
        first_panel(second_patch + a.grid.value_slices * panel_numbers<T>),
        second_panel(first_panel + panel_numbers<T>) {}

  // Of the pairs of outputs, which a patch has, and sources, which a run has: logits, and grad · value.
  template <bool Vector>
  __device__ void products(const PatchGrid& grid, const Run<Vector>& run, int row, bool inside,
                           const PairPlaces& places, const float* bias, PairSums& logits, PairSums& grads) const {
    patch_products<T, Vector>(first_patch, key, run, row, inside, grid.query_slices, first_panel, logits);
    patch_products<T, Vector>(second_patch, value, run, row, inside, grid.value_slices, second_panel, grads);
    finish_logits(places, bias, grid.logit_scale, logits);
  }
};

template <typename T, bool Vector>
__global__ void __launch_bounds__(patches_threads, forward_resident_blocks<T>)
    statistics_patch_kernel(const PatchBackward<T> a) {
  const PatchGrid& grid = a.grid;
  const PatchUnit block(grid.tiling.groups(), 1);
  const int index = patch_of_warp(block.unit);
  float* bias = shared_memory<float>();
  stage_bias<T>(grid, block.sample, block.head, bias);
  __syncthreads();
  if (index >= grid.tiling.patches) return;

  const BackwardWarp<T> warp(a, block.sample, block.head);
  const Patch patch(grid.tiling, grid.y, grid.x, index);
  copy_patch<T, Vector>(warp.query, grid.y, grid.x, patch, grid.query_slices, warp.first_patch);
  copy_patch<T, Vector>(warp.grad_out, grid.y, grid.x, patch, grid.value_slices, warp.second_patch);

  OnlineSoftmax softmax;
  float sum[patch_rows] = {};
  for_sources<Vector>(grid, patch, [&](const Run<Vector>& run, int row, bool inside, const PairPlaces& places) {
    PairSums attn, grads;
    warp.products(grid, run, row, inside, places, bias, attn, grads);
    float rescale[patch_rows];
    softmax.add(attn, rescale);
#pragma unroll
    for (int i = 0; i < patch_rows; ++i) sum[i] *= rescale[i];
#pragma unroll
    for (int k = 0; k < 4 * pair_blocks; ++k) sum[k % 4 / 2] += attn[k / 4][k % 4] * grads[k / 4][k % 4];
  });

  Statistics* statistics = a.statistics_of(block.sample, block.head);
#pragma unroll
  for (int i = 0; i < patch_rows; ++i) {
    const float total = sum_over_quad(softmax.total[i]), mean = sum_over_quad(sum[i]) / total;
    if (!patch.row_exists[i] || !patch.column_exists || lane_index() % 4 != 0) continue;
    statistics[int64_t(patch.row_positions[i]) * grid.x.length + patch.column_position] = {
        softmax.largest[i] + log2f(total), mean};
  }
}

// A warp's sums of the gradient of bias in shared memory, and the gradients of 16 × 16 logits on their way to them.
struct BiasSums {
  static constexpr int pitch = panel_pixels + 1;  // odd: the columns of eight outputs lie in different banks
  float *pairs, *sums;

  // The numbers of a warp.
  __host__ __device__ static int numbers(const PatchGrid& grid) { return panel_pixels * pitch + grid.bias_size; }

  __device__ BiasSums(const PatchGrid& grid, float* of_all, int warp)
      : pairs(of_all + warp * numbers(grid)), sums(pairs + panel_pixels * pitch) {}

  // `first_columns` are the sources whose bias is in column 0, for each column of the patch.
  __device__ void add(const PatchGrid& grid, const PairSums& grads, const int (&rows)[patch_rows],
                      const int (&first_columns)[patch_columns], int first) const {
    const int lane = lane_index();
    __syncwarp();
#pragma unroll
    for (int k = 0; k < 4 * pair_blocks; ++k) {
      pairs[(lane / 4 + k % 4 / 2 * 8) * pitch + k / 4 * 8 + lane % 4 * 2 + k % 2] = grads[k / 4][k % 4];
    }
    __syncwarp();
    // A lane has the columns of bias that are its number modulo 32.
    for (int column = lane; column < grid.bias_columns; column += warp_lanes) {
#pragma unroll
      for (int i = 0; i < patch_rows; ++i) {
        if (rows[i] < 0) continue;
        float sum = 0;
#pragma unroll
        for (int output = 0; output < patch_columns; ++output) {
          const int source = column + first_columns[output] - first;
          if (within(source, panel_pixels)) sum += pairs[(patch_columns * i + output) * pitch + source];
        }
        sums[rows[i] + column] += sum;
      }
    }
  }
};

// A thread block has every `units`-th group of four patches of a sample, and of query one slice of a head. The one that
// has the first slice has the gradient of bias too.
template <typename T, bool Vector>
__global__ void __launch_bounds__(patches_threads, backward_resident_blocks<T>)
    outputs_patch_kernel(const PatchBackward<T> a) {
  const PatchGrid& grid = a.grid;
  const PatchUnit block(a.units, grid.query_slices);
  const bool wants_bias = a.partial_bias && block.slice == 0;
  if (!wants_bias && !a.grad_query.data) return;
  float* bias = shared_memory<float>();
  stage_bias<T>(grid, block.sample, block.head, bias);
  T* panels = reinterpret_cast<T*>(bias + bias_numbers(grid));
  float* all_sums = reinterpret_cast<float*>(panels + patches_warps * backward_panels(grid) * panel_numbers<T>);
  const BiasSums bias_sums(grid, all_sums, int(threadIdx.x) / warp_lanes);
  for (int i = lane_index(); wants_bias && i < grid.bias_size; i += warp_lanes) bias_sums.sums[i] = 0;
  __syncthreads();

  const BackwardWarp<T> warp(a, block.sample, block.head);
  const Statistics* statistics = a.statistics_of(block.sample, block.head);
  for (int group = block.unit; group < grid.tiling.groups(); group += a.units) {
    const int index = patch_of_warp(group);
    if (index >= grid.tiling.patches) break;
    const Patch patch(grid.tiling, grid.y, grid.x, index);
    __syncwarp();
    copy_patch<T, Vector>(warp.query, grid.y, grid.x, patch, grid.query_slices, warp.first_patch);
    copy_patch<T, Vector>(warp.grad_out, grid.y, grid.x, patch, grid.value_slices, warp.second_patch);
    Statistics own[patch_rows];
#pragma unroll
    for (int i = 0; i < patch_rows; ++i) {
      own[i] = statistics[int64_t(patch.row_positions[i]) * grid.x.length + patch.column_position];
    }
    const int own_first = Window(grid.x, patch.column_position, patch.column).bias;
    int first_columns[patch_columns];
#pragma unroll
    for (int k = 0; k < patch_columns; ++k) first_columns[k] = __shfl_sync(all_lanes, own_first, 4 * k);

    ChannelSums sum = {};
    for_sources<Vector>(grid, patch, [&](const Run<Vector>& run, int row, bool inside, const PairPlaces& places) {
      PairSums pairs, grads;
      warp.products(grid, run, row, inside, places, bias, pairs, grads);
#pragma unroll
      for (int k = 0; k < 4 * pair_blocks; ++k) {
        const Statistics& output = own[k % 4 / 2];
        float& pair = pairs[k / 4][k % 4];
        pair = fast_exp2(pair - output.lse) * (grads[k / 4][k % 4] - output.mean);
      }
      if (block.slice != grid.query_slices - 1) {
        copy_run<T, Vector>(warp.key, run, row, inside, block.slice, warp.first_panel);
      }
      if (a.grad_query.data) add_weighted<T>(pairs, warp.first_panel, sum);
      if (wants_bias) bias_sums.add(grid, pairs, places.rows, first_columns, run.first);
    });
    if (a.grad_query.data) {
      const HeadMap<T> to(a.grad_query, block.sample, block.head, grid.query_channels);
      store_patch<Vector>(sum, {grid.scale, grid.scale}, patch, to, block.slice);
    }
  }

  if (!wants_bias) return;
  __syncthreads();
  float* partial =
      a.partial_bias + ((int64_t(block.sample) * a.units + block.unit) * grid.heads + block.head) * grid.bias_size;
  for (int i = threadIdx.x; i < grid.bias_size; i += patches_threads) {
    float sum = 0;
    for (int warp = 0; warp < patches_warps; ++warp) sum += BiasSums(grid, all_sums, warp).sums[i];
    partial[i] = sum;
  }
}

// A thread block has four patches of sources, and of key and value one slice of a head.
template <typename T, bool Vector>
__global__ void __launch_bounds__(patches_threads, backward_resident_blocks<T>)
    sources_patch_kernel(const PatchBackward<T> a) {
  const PatchGrid& grid = a.grid;
  const int slices = grid.query_slices > grid.value_slices ? grid.query_slices : grid.value_slices;
  const PatchUnit block(grid.tiling.groups(), slices);
  const int index = patch_of_warp(block.unit);
  float* bias = shared_memory<float>();
  stage_bias<T>(grid, block.sample, block.head, bias);
  __syncthreads();
  if (index >= grid.tiling.patches) return;

  const BackwardWarp<T> warp(a, block.sample, block.head);
  const Statistics* statistics = a.statistics_of(block.sample, block.head);
  const Patch patch(grid.tiling, grid.y, grid.x, index);
  copy_patch<T, Vector>(warp.key, grid.y, grid.x, patch, grid.query_slices, warp.first_patch);
  copy_patch<T, Vector>(warp.value, grid.y, grid.x, patch, grid.value_slices, warp.second_patch);
  const bool wants_key = a.sum_key.data && block.slice < grid.query_slices;
  const bool wants_value = a.sum_value.data && block.slice < grid.value_slices;

  ChannelSums sum_key = {}, sum_value = {};
  for_outputs<Vector>(grid, patch, [&](const OutputRun<Vector>& run, int row, const PairPlaces& places) {
    PairSums attn, grads;
    patch_products<T, Vector>(warp.first_patch, warp.query, run, row, true, grid.query_slices, warp.first_panel, attn);
    patch_products<T, Vector>(warp.second_patch, warp.grad_out, run, row, true, grid.value_slices, warp.second_panel,
                              grads);
    finish_logits(places, bias, grid.logit_scale, attn);
    Statistics of_output[Run<Vector>::paired_columns];
#pragma unroll
    for (int k = 0; k < Run<Vector>::paired_columns; ++k) {
      of_output[k] = statistics[int64_t(row) * grid.x.length + run.outputs[k]];
    }
#pragma unroll
    for (int k = 0; k < 4 * pair_blocks; ++k) {
      const Statistics& output = of_output[k / 4 * 2 + k % 2];
      float &pair = attn[k / 4][k % 4], &gradient = grads[k / 4][k % 4];
      pair = fast_exp2(pair - output.lse);
      gradient = pair * (gradient - output.mean);
    }
    if (wants_key) {
      if (block.slice != grid.query_slices - 1) {
        copy_run<T, Vector>(warp.query, run, row, true, block.slice, warp.first_panel);
      }
      add_weighted<T>(grads, warp.first_panel, sum_key);
    }
    if (wants_value) {
      if (block.slice != grid.value_slices - 1) {
        copy_run<T, Vector>(warp.grad_out, run, row, true, block.slice, warp.second_panel);
      }
      add_weighted<T>(attn, warp.second_panel, sum_value);
    }
  });

  if (wants_key) {
    const HeadMap<float> to(a.sum_key, block.sample, block.head, grid.query_channels);
    store_patch<Vector>(sum_key, {grid.scale, grid.scale}, patch, to, block.slice);
  }
  if (wants_value) {
    const HeadMap<float> to(a.sum_value, block.sample, block.head, grid.value_channels);
    store_patch<Vector>(sum_value, {1, 1}, patch, to, block.slice);
  }
}

}  // namespace elsa::neighborhood_attention
