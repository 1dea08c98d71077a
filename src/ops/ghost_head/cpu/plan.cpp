#include "plan.h"

#include <algorithm>
#include <stdexcept>

#include "../../../core/launch_plan.h"

namespace elsa::ghost_head {
namespace {

// A tile's window and its attention stay in the second-level cache; 14 and 28 divide the maps of Swin and VOLO.
constexpr int64_t most_rows = 14, most_columns = 28;

bool is_compiled(int64_t kernel_size) { return kernel_size == 3 || kernel_size == 5 || kernel_size == 7; }

}  // namespace

Plan::Plan(const Shape& shape, Pass pass, int64_t lanes) : neighbourhood(shape.neighbourhood), spacing(1) {
  const bool adjoint = pass == Pass::adjoint;
  const int64_t height = shape.out_height(), width = shape.out_width(), stride = shape.neighbourhood.stride;
  tiling = adjoint ? cpu::even_tiling(shape.height, shape.width, most_rows, most_columns)
                   : cpu::even_tiling(height, width, most_rows, most_columns);
  if (adjoint) neighbourhood.stride = 1, spacing = stride;
  source_height = adjoint ? (height - 1) * spacing + 1 : shape.height;
  source_width = adjoint ? (width - 1) * spacing + 1 : shape.width;
  slice = shape.head_channels() > lanes ? 2 * lanes : lanes;
  const int64_t kernel_size = neighbourhood.kernel_size;
  compiled_taps = pass != Pass::reduce && neighbourhood.stride == 1 && is_compiled(kernel_size) ? kernel_size : 0;
  window_pixels = neighbourhood.longest_reach(tiling.rows, source_height) *
                  neighbourhood.longest_reach(tiling.columns, source_width);
}

int64_t chunks(const Shape& shape, int64_t sums) {
  constexpr int64_t most = 64;  // of all sums
  const int64_t tiles = Plan(shape, Pass::reduce, 1).tiling.count() * (shape.batch / sums);
  return std::min(tiles, std::max<int64_t>(1, most / sums));
}

namespace {

Shape shape_of(PlanRequest& request) {
  Shape shape{};
  shape.batch = request.positive("batch"), shape.channels = request.positive("channels");
  shape.height = request.positive("height"), shape.width = request.positive("width");
  shape.heads = request.positive("heads");
  shape.neighbourhood.kernel_size = request.positive("kernel_size");
  shape.neighbourhood.dilation = request.positive("dilation", 1);
  shape.neighbourhood.stride = request.positive("stride", 1);
  request.expect_no_more();
  if (shape.neighbourhood.kernel_size % 2 == 0) throw std::invalid_argument("kernel_size must be odd");
  if (shape.channels % shape.heads != 0) throw std::invalid_argument("it needs heads that divide channels");
  if (shape.out_height() * shape.out_width() == 0) throw std::invalid_argument("stride is larger than the map");
  return shape;
}

LaunchPlan describe(PlanRequest& request) {
  const Shape shape = shape_of(request);
  const int64_t bytes = size_of(accumulation(request.dtype()));
  const Plan plan(shape, Pass::forward, vector_kernels().vector_bytes / bytes);
  const std::string compiled = "K = " + std::to_string(plan.compiled_taps) + " compiled, for tiles that all taps reach";
  const int64_t partials = chunks(shape, 1);
  return {{"instruction set", cpu::name(cpu::capability())},
          {"gather", plan.compiled_taps > 0 ? compiled : "any K"},
          {"pixels at once", vector_kernels().pixels_at_once},
          {"channels at once", plan.slice},
          {"tile rows", plan.tiling.rows},
          {"tile columns", plan.tiling.columns},
          {"units", shape.batch * shape.heads * plan.tiling.count()},
          {"chunks of partial sums", partials},
          {"partial sums bytes", partials * shape.channels * shape.taps() * bytes},
          {"window bytes per thread", plan.window_pixels * plan.slice * bytes}};
}

const LaunchPlanEntry entry("ghost_head", describe);

}  // namespace
}  // namespace elsa::ghost_head
