// The forward of neighborhood_attention on patches: an online softmax over the sources that a patch looks at.
#pragma once

#include <cfloat>

#include "patch.cuh"

namespace elsa::neighborhood_attention {

using namespace cuda;

template <typename T>
struct PatchForward {
  PatchGrid grid;
  Map<const T> query, key, value;
  Map<T> out;
};

// Of a warp: the queries of its patch, a slice of the keys and of the values of a run.
__host__ __device__ inline int forward_panels(const PatchGrid& grid) { return grid.query_slices + 2; }

// The largest logit of each of a lane's rows so far, and the lane's part of the sums of exp2 under it.
struct OnlineSoftmax {
  // Less than any logit that counts, and not −∞, whose difference from itself is not a number.
  float largest[patch_rows] = {-FLT_MAX, -FLT_MAX}, total[patch_rows] = {};

  // Make weights of logits. What was added up under earlier weights has to be multiplied by `rescale`.
  __device__ void add(PairSums& pairs, float (&rescale)[patch_rows]) {
#pragma unroll
    for (int i = 0; i < patch_rows; ++i) {
      float largest_now = largest[i];
#pragma unroll
      for (int j = 0; j < 2 * pair_blocks; ++j) largest_now = fmaxf(largest_now, pairs[j / 2][2 * i + j % 2]);
      largest_now = fmaxf(largest_now, __shfl_xor_sync(all_lanes, largest_now, 1));
      largest_now = fmaxf(largest_now, __shfl_xor_sync(all_lanes, largest_now, 2));
      rescale[i] = fast_exp2(largest[i] - largest_now);
      largest[i] = largest_now;
      total[i] *= rescale[i];
#pragma unroll
      for (int j = 0; j < 2 * pair_blocks; ++j) {
        float& pair = pairs[j / 2][2 * i + j % 2];
        pair = fast_exp2(pair - largest_now);
        total[i] += pair;
      }
    }
  }
};

// A thread block has four patches, and of value one slice of a head.
template <typename T, bool Vector>
__global__ void __launch_bounds__(patches_threads, forward_resident_blocks<T>)
    forward_patch_kernel(const PatchForward<T> a) {
  const PatchGrid& grid = a.grid;
  const PatchUnit block(grid.tiling.groups(), grid.value_slices);
  const int index = patch_of_warp(block.unit);
  float* bias = shared_memory<float>();
  stage_bias<T>(grid, block.sample, block.head, bias);
  __syncthreads();
  if (index >= grid.tiling.patches) return;

  T* query_panels = warp_panels<T>(grid, forward_panels(grid));
  T* key_panel = query_panels + grid.query_slices * panel_numbers<T>;
  T* value_panel = key_panel + panel_numbers<T>;
  const HeadMap<const T> query(a.query, block.sample, block.head, grid.query_channels);
  const HeadMap<const T> key(a.key, block.sample, block.head, grid.query_channels);
  const HeadMap<const T> value(a.value, block.sample, block.head, grid.value_channels);
  const Patch patch(grid.tiling, grid.y, grid.x, index);
  copy_patch<T, Vector>(query, grid.y, grid.x, patch, grid.query_slices, query_panels);

  OnlineSoftmax softmax;
  ChannelSums sum = {};
  for_sources<Vector>(grid, patch, [&](const Run<Vector>& run, int row, bool inside, const PairPlaces& places) {
    PairSums pairs;
    patch_products<T, Vector>(query_panels, key, run, row, inside, grid.query_slices, key_panel, pairs);
    copy_run<T, Vector>(value, run, row, inside, block.slice, value_panel);
    finish_logits(places, bias, grid.logit_scale, pairs);
    float rescale[patch_rows];
    softmax.add(pairs, rescale);
#pragma unroll
    for (int k = 0; k < 4 * channel_blocks; ++k) sum[k / 4][k % 4] *= rescale[k % 4 / 2];
    add_weighted<T>(pairs, value_panel, sum);
  });

  const float totals[patch_rows] = {sum_over_quad(softmax.total[0]), sum_over_quad(softmax.total[1])};
  const HeadMap<T> out(a.out, block.sample, block.head, grid.value_channels);
  store_patch<Vector>(sum, {1 / totals[0], 1 / totals[1]}, patch, out, block.slice);
}

}  // namespace elsa::neighborhood_attention
