// The description of what a call of ghost_head gets on the CPU.
#include <algorithm>
#include <stdexcept>

#include "elsa/launch_plan.h"

namespace elsa::cpu {
namespace {

// Whether all taps reach the map from every tile: then the loop over them can be compiled.
bool takes_all_taps(const GhostHeadShape& shape, const Tiling& tiling) {
  const int64_t last_rows = shape.out_height() - (tiling.down - 1) * tiling.rows;
  const int64_t last_columns = shape.out_width() - (tiling.across - 1) * tiling.columns;
  return shape.kernel_size / 2 * shape.dilation < std::min(last_rows, last_columns);
}

}  // namespace

LaunchPlan launch_plan(const GhostHeadShape& shape, DType dtype) {
  const auto positive = {shape.batch, shape.channels,    shape.out_height(), shape.out_width(),
                         shape.heads, shape.kernel_size, shape.dilation};
  if (std::min(positive) < 1 || shape.kernel_size % 2 == 0 || shape.channels % shape.heads != 0) {
    throw std::invalid_argument(
        "launch_plan: ghost_head needs positive sizes, an odd kernel_size, and heads that divide channels");
  }
  const GhostHeadKernels& kernels = ghost_head();
  const int64_t size = dtype == DType::float64 ? 8 : 4, lanes = kernels.vector_bytes / size, taps = shape.taps();
  const int64_t block = shape.head_channels() > lanes ? 2 * lanes : lanes;
  GhostHeadReduce reduce{};
  reduce.shape = shape, reduce.samples = 1;
  const Tiling tiling = cpu::tiling(reduce);
  const int64_t K = shape.kernel_size;
  const bool compiled = (K == 3 || K == 5 || K == 7) && shape.stride == 1 && takes_all_taps(shape, tiling);
  const int64_t window = longest_axis(tiling.rows, shape.stride, shape.height, shape) *
                         longest_axis(tiling.columns, shape.stride, shape.width, shape);
  return {{"instruction set", name(capability())},
          {"gather", compiled ? "K = " + std::to_string(K) + " compiled" : "any K"},
          {"pixels at once", kernels.pixels_at_once},
          {"channels at once", block},
          {"tile rows", tiling.rows},
          {"tile columns", tiling.columns},
          {"units", shape.batch * shape.heads * tiling.count()},
          {"chunks of partial sums", chunks(reduce)},
          {"partial sums bytes", chunks(reduce) * shape.channels * taps * size},
          {"window bytes per thread", window * block * size}};
}

}  // namespace elsa::cpu
