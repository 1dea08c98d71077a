#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <tuple>

#include "../../../cpu/local/plan.h"

namespace elsa::ghost_head {
namespace {

// A tile's window and its attention stay in the second-level cache; 14 and 28 divide the maps of Swin and VOLO.
constexpr int64_t most_rows = 14, most_columns = 28;

bool is_compiled(int64_t kernel_size) { return kernel_size == 3 || kernel_size == 5 || kernel_size == 7; }

}  // namespace

Plan::Plan(const Shape& shape, Pass pass, int64_t lanes) : neighbourhood(shape.x), spacing(1) {
  const bool adjoint = pass == Pass::adjoint;
  const int64_t height = shape.out_height(), width = shape.out_width(), stride = shape.x.stride;
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

Neighbours::Neighbours(std::vector<Neighbour> all, std::vector<int64_t> starts)
    : all_(std::move(all)),
      starts_of_(std::move(starts)),
      first_(all_.data()),
      starts_(starts_of_.data()),
      count_(int64_t(starts_of_.size()) - 1) {}

Neighbours Neighbours::of_outputs(const Neighbourhood& axis, int64_t length) {
  std::vector<Neighbour> all;
  std::vector<int64_t> starts{0};
  for (int64_t output = 0; output < length / axis.stride; ++output) {
    const Taps taps = axis.taps(output * axis.stride, length);
    for (int64_t tap = taps.begin; tap < taps.end; ++tap) {
      int64_t source = taps.first + tap * axis.dilation;
      if (axis.border == Border::circular) source = (source % length + length) % length;
      if (source >= 0 && source < length) all.push_back({source, tap});
    }
    starts.push_back(int64_t(all.size()));
  }
  return {std::move(all), std::move(starts)};
}

Neighbours Neighbours::of_sources(const Neighbourhood& axis, int64_t length) {
  const Neighbours outputs = of_outputs(axis, length);
  std::vector<int64_t> starts(length + 1);
  for (const Neighbour& neighbour : outputs.all_) ++starts[neighbour.position + 1];
  for (int64_t source = 0; source < length; ++source) starts[source + 1] += starts[source];
  std::vector<Neighbour> all(outputs.all_.size());
  std::vector<int64_t> next = starts;
  for (int64_t output = 0; output < outputs.count(); ++output) {
    for (const Neighbour* at = outputs.begin(output); at != outputs.end(output); ++at) {
      all[next[at->position]++] = {output, at->tap};
    }
  }
  return {std::move(all), std::move(starts)};
}

int64_t chunks(const Shape& shape, int64_t sums) {
  constexpr int64_t most = 64;  // of all sums
  const int64_t parts = shape.square ? Plan(shape, Pass::reduce, 1).tiling.count() : shape.out_height();
  return std::min(parts * (shape.batch / sums), std::max<int64_t>(1, most / sums));
}

namespace {

Shape shape_of(PlanRequest& request) {
  Shape shape{};
  shape.batch = request.positive("batch"), shape.channels = request.positive("channels");
  shape.height = request.positive("height"), shape.width = request.positive("width");
  shape.heads = request.positive("heads");
  const auto stride = request.positive_pair("stride", 1);
  std::tie(shape.y, shape.x) = cpu::requested_neighbourhoods(request, shape.height, shape.width);
  request.expect_no_more();
  shape.y.stride = stride[0], shape.x.stride = stride[1];
  shape = completed(shape);
  if (shape.channels % shape.heads != 0) throw std::invalid_argument("it needs heads that divide channels");
  if (shape.out_height() * shape.out_width() == 0) throw std::invalid_argument("stride is larger than the map");
  return shape;
}

LaunchPlan describe(PlanRequest& request) {
  const Shape shape = shape_of(request);
  const int64_t bytes = size_of(accumulation(request.dtype())), partials = chunks(shape, 1);
  const int64_t partial_bytes = partials * shape.channels * shape.taps() * bytes;
  if (!shape.square && is_local(shape, false)) return cpu::describe(local_shape(shape), local_plan(shape));
  if (!shape.square) {
    return {{"instruction set", cpu::name(cpu::capability())},
            {"gather", "any neighbours, a row of pixels at a time"},
            {"units", shape.batch * shape.heads * shape.out_height()},
            {"chunks of partial sums", partials},
            {"partial sums bytes", partial_bytes}};
  }
  const Plan plan(shape, Pass::forward, vector_kernels().vector_bytes / bytes);
  const std::string compiled = "K = " + std::to_string(plan.compiled_taps) + " compiled, for tiles that all taps reach";
  return {{"instruction set", cpu::name(cpu::capability())},
          {"gather", plan.compiled_taps > 0 ? compiled : "any K"},
          {"pixels at once", vector_kernels().pixels_at_once},
          {"channels at once", plan.slice},
          {"tile rows", plan.tiling.rows},
          {"tile columns", plan.tiling.columns},
          {"units", shape.batch * shape.heads * plan.tiling.count()},
          {"chunks of partial sums", partials},
          {"partial sums bytes", partial_bytes},
          {"window bytes per thread", plan.window_pixels * plan.slice * bytes}};
}

const LaunchPlanEntry entry("ghost_head", describe);

}  // namespace
}  // namespace elsa::ghost_head
