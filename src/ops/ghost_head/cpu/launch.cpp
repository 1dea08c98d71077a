// The passes of ghost_head on the CPU, in parallel.
#include "../../../torch/parallel.h"
#include "../kernels.h"
#include "plan.h"

namespace elsa::ghost_head {
namespace {

Plan plan_of(const Shape& shape, Pass pass, DType dtype) {
  return {shape, pass, vector_kernels().vector_bytes / size_of(accumulation(dtype))};
}

void gather(const Gather& pass) {
  const Plan plan = plan_of(pass.shape, pass.adjoint ? Pass::adjoint : Pass::forward, pass.out.dtype);
  const auto kernel = vector_kernels().gather;
  parallel(pass.shape.heads * pass.shape.batch * plan.tiling.count(),
           product({plan.tiling.pixels(), pass.shape.taps(), pass.shape.head_channels()}),
           [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
}

void reduce(const Reduce& pass) {
  const Plan plan = plan_of(pass.shape, Pass::reduce, pass.value.dtype);
  const auto kernel = vector_kernels().reduce;
  const int64_t pixels = pass.samples_of_a_sum() * plan.tiling.count() / pass.chunks * plan.tiling.pixels();
  parallel(pass.shape.heads * pass.sums * pass.chunks, product({pixels, pass.shape.taps(), pass.shape.head_channels()}),
           [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
}

}  // namespace

const Kernels kernels{gather, reduce, chunks};

}  // namespace elsa::ghost_head
