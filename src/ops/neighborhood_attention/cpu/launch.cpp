// The passes of neighborhood_attention on the CPU, in parallel.
#include "../../../cpu/local/launch.h"

#include "../kernels.h"
#include "plan.h"

namespace elsa::neighborhood_attention {
namespace {

void forward(const Forward& pass) {
  const cpu::LocalPlan plan = forward_plan(pass.shape);
  const auto kernel = vector_kernels().forward;
  cpu::parallel_units(pass.shape, plan, pass.shape.channels + pass.value_channels,
                      [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
}

void backward(const Backward& pass) {
  const cpu::LocalPlan plan = backward_plan(pass.shape);
  const auto kernel = vector_kernels().backward;
  const bool adds = pass.sum_key.data != nullptr || pass.sum_value.data != nullptr;
  cpu::parallel_chunks(pass.shape, plan, pass.chunks, adds, 3 * pass.shape.channels + 2 * pass.value_channels,
                       [&](int64_t phase, int64_t first, int64_t last) { kernel(pass, plan, phase, first, last); });
}

int64_t chunks(const LocalShape& shape) { return cpu::local_chunks(shape, backward_plan(shape)); }

}  // namespace

const Kernels kernels{forward, backward, chunks, [](const Forward&) { return int64_t(0); },
                      [](const Backward&) { return int64_t(0); }};

}  // namespace elsa::neighborhood_attention
