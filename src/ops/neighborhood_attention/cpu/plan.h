// The CPU kernels of neighborhood_attention.
#pragma once

#include "../../../cpu/dispatch.h"
#include "../../../cpu/local/plan.h"
#include "../contract.h"

namespace elsa::neighborhood_attention {

// A tile's windows and the attention of a strip stay in the second-level cache; 14 and 28 divide the maps of Swin. The
// backward has more than twice as much of both.
inline cpu::LocalPlan forward_plan(const LocalShape& shape) { return {shape, 28, 28, 14}; }
inline cpu::LocalPlan backward_plan(const LocalShape& shape) { return {shape, 14, 28, 7}; }

// Units of work: see cpu/local/launch.h.
struct VectorKernels {
  void (*forward)(const Forward& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit);
  void (*backward)(const Backward& pass, const cpu::LocalPlan& plan, int64_t phase, int64_t first, int64_t last);
};

ELSA_VECTOR_KERNELS(VectorKernels)

}  // namespace elsa::neighborhood_attention
