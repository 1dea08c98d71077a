// The passes of local attention on the CPU, in parallel.
#pragma once

#include <algorithm>

#include "../../torch/parallel.h"
#include "plan.h"

namespace elsa::cpu {

// Run `work(first, last)` over a head of a unit of a sample each, in that order from the innermost.
template <typename Work>
void parallel_units(const LocalShape& shape, const LocalPlan& plan, int64_t pixel_cost, const Work& work) {
  parallel(shape.batch * plan.units() * shape.heads, product({plan.tiling.pixels(), shape.taps(), pixel_cost}), work);
}

// Chunks of the units of every sample and head, for passes that add up: enough for many threads, and a bounded number
// of them.
inline int64_t local_chunks(const LocalShape& shape, const LocalPlan& plan) {
  constexpr int64_t most = 256;
  return std::clamp<int64_t>(most / (shape.batch * shape.heads), 1, plan.units());
}

// Run `work(phase, first, last)` over a head of a chunk of a sample each, phase by phase. Where nothing is added to the
// sources there is one phase, -1, for all units.
template <typename Work>
void parallel_chunks(const LocalShape& shape, const LocalPlan& plan, int64_t chunks, bool adds, int64_t pixel_cost,
                     const Work& work) {
  const int64_t cost = product({plan.tiling.pixels(), divide_up(plan.units(), chunks), shape.taps(), pixel_cost});
  for (int64_t phase = adds ? 0 : -1; phase < (adds ? plan.phases() : 0); ++phase) {
    parallel(shape.batch * chunks * shape.heads, cost, [&](int64_t first, int64_t last) { work(phase, first, last); });
  }
}

}  // namespace elsa::cpu
