// Loops in PyTorch's threads.
#pragma once

#include <torch/csrc/stable/ops.h>

#include "../core/index.h"

namespace elsa {

// Run `work(first, last)` over `units` of about `unit_cost` multiply-adds each: in parallel where it is worth a thread.
template <typename Work>
void parallel(int64_t units, int64_t unit_cost, const Work& work) {
  constexpr int64_t worth_a_thread = 1 << 16;
  torch::stable::parallel_for(0, units, unit_cost < worth_a_thread ? worth_a_thread / (unit_cost + 1) + 1 : 1, work);
}

}  // namespace elsa
