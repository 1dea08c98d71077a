// The CPU kernels of neighborhood_logits.
#pragma once

#include "../../../cpu/dispatch.h"
#include "../../../cpu/local/plan.h"
#include "../contract.h"

namespace elsa::neighborhood_logits {

// A tile's window and the taps of a strip stay in the second-level cache; 14 and 28 divide the maps of Swin.
inline cpu::LocalPlan plan_of(const LocalShape& shape) { return {shape, 28, 28, 14}; }

// Units of work: see cpu/local/launch.h.
struct VectorKernels {
  void (*forward)(const Forward& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit);
  void (*backward)(const Backward& pass, const cpu::LocalPlan& plan, int64_t phase, int64_t first, int64_t last);
};

ELSA_VECTOR_KERNELS(VectorKernels)

}  // namespace elsa::neighborhood_logits
