// The passes of neighborhood_logits on the CPU, in parallel.
#include "../../../cpu/local/launch.h"

#include "../kernels.h"
#include "plan.h"

namespace elsa::neighborhood_logits {
namespace {

void forward(const Forward& pass) {
  const cpu::LocalPlan plan = plan_of(pass.shape);
  const auto kernel = vector_kernels().forward;
  cpu::parallel_units(pass.shape, plan, pass.shape.channels,
                      [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
}

void backward(const Backward& pass) {
  const cpu::LocalPlan plan = plan_of(pass.shape);
  const auto kernel = vector_kernels().backward;
  cpu::parallel_chunks(pass.shape, plan, pass.chunks, pass.sum_key.data != nullptr, 2 * pass.shape.channels,
                       [&](int64_t phase, int64_t first, int64_t last) { kernel(pass, plan, phase, first, last); });
}

int64_t chunks(const LocalShape& shape) { return cpu::local_chunks(shape, plan_of(shape)); }

}  // namespace

const Kernels kernels{forward, backward, chunks};

}  // namespace elsa::neighborhood_logits
