#include "plan.h"

#include <algorithm>
#include <stdexcept>

#include "../../../core/launch_plan.h"

namespace elsa::hadamard_attention {
namespace {

// float64 takes the loops for any number of taps: it is for checking derivatives.
int64_t compiled_taps_of(const Neighbourhood& neighbourhood, DType dtype) {
  const int64_t size = neighbourhood.kernel_size;
  const bool compiled = size == 3 || size == 5 || size == 7;
  return compiled && neighbourhood.dilation == 1 && dtype == DType::float32 ? size : 0;
}

}  // namespace

Plan::Plan(const Shape& of, int64_t vector_bytes, DType dtype)
    : shape(of),
      slice(2 * vector_bytes / size_of(dtype)),
      permutes(vector_bytes > 16),
      compiled_taps(compiled_taps_of(of.neighbourhood, dtype)) {
  // A tile's hidden map takes a part of the second-level cache; enough tiles for as many threads. Results per pixel do
  // not depend on it.
  constexpr int64_t tile_elements = 32 * 1024, most_columns = 8 * strip_pixels, enough_tiles = 16, least_rows = 2;
  constexpr int64_t band_pixels = 112, chunk_pixels = 192, most_chunks = 32;
  constexpr int64_t one = 1;
  const int64_t height = shape.out_height(), width = shape.out_width();
  tiling.height = height, tiling.width = width;
  const int64_t wanted_across = std::max(one, divide_up(width, most_columns));
  tiling.columns = std::max(one, divide_up(divide_up(width, wanted_across), strip_pixels)) * strip_pixels;
  tiling.across = std::max(one, divide_up(width, tiling.columns));
  const int64_t cached_rows = std::max(one, tile_elements / (tiling.columns * shape.channels));
  const int64_t wanted_down = divide_up(enough_tiles, std::max(one, shape.batch * tiling.across));
  tiling.down = std::max(one, divide_up(height, std::min(cached_rows, std::max(least_rows, height / wanted_down))));
  tiling.rows = divide_up(height, tiling.down);
  band = std::clamp(band_pixels / tiling.columns, one, std::max(one, tiling.rows));
  chunks = std::clamp(shape.batch * height * width / chunk_pixels, one, std::clamp(tiles(), one, most_chunks));
}

int64_t Plan::window_rows() const { return std::min(shape.out_height(), tiling.rows + shape.neighbourhood.reach()); }

int64_t Plan::window_columns() const {
  return std::min(tiling.columns + shape.neighbourhood.reach(), shape.out_width() + 2 * tiling.columns);
}

namespace {

Shape shape_of(PlanRequest& request) {
  Shape shape{};
  shape.batch = request.positive("batch"), shape.channels = request.positive("channels");
  shape.height = request.positive("height"), shape.width = request.positive("width");
  shape.heads = request.positive("heads");
  shape.neighbourhood = {request.positive("kernel_size"), request.positive("dilation", 1), 1};
  shape.pooling = request.positive("stride", 1);
  shape.groups = request.positive("groups"), shape.proj_groups = request.positive("proj_groups", 1);
  request.expect_no_more();
  if (shape.neighbourhood.kernel_size % 2 == 0) throw std::invalid_argument("kernel_size must be odd");
  if (shape.channels % shape.groups != 0) throw std::invalid_argument("it needs groups that divide channels");
  if (shape.channels % shape.proj_groups != 0 || shape.attn_channels() % shape.proj_groups != 0) {
    throw std::invalid_argument("it needs proj_groups that divide channels and heads · kernel_size²");
  }
  if (shape.out_height() * shape.out_width() == 0) throw std::invalid_argument("stride is larger than the map");
  return shape;
}

std::string spread_of(const Plan& plan) {
  if (plan.shape.group_width() == 1) return "one";
  switch (plan.spread()) {
    case Spread::memory:
      return "lie spread in memory";
    case Spread::permutation:
      return "are permuted";
    default:
      return "are broadcast";
  }
}

LaunchPlan describe(PlanRequest& request) {
  const Shape shape = shape_of(request);
  const DType dtype = accumulation(request.dtype());
  const Plan plan(shape, vector_kernels().vector_bytes, dtype);
  const int64_t size = size_of(dtype), taps = plan.compiled_taps;
  const int64_t common = plan.window_size() + plan.spread_size() + plan.row_size();
  return {{"instruction set", cpu::name(cpu::capability())},
          {"convolution", taps > 0 ? "direct, K = " + std::to_string(taps) + " compiled" : "direct, any K"},
          {"channels of a group", spread_of(plan)},
          {"tile rows", plan.tiling.rows},
          {"tile columns", std::min(plan.tiling.columns, shape.out_width())},
          {"rows at once", plan.band},
          {"tiles", plan.tiles()},
          {"chunks of partial sums", plan.chunks},
          {"partial sums bytes", plan.chunks * plan.partial_size() * size},
          {"forward scratch bytes per thread", (common + plan.hidden_size() + plan.logits_size()) * size},
          {"backward scratch bytes per thread", (common + 3 * plan.hidden_size() + plan.logits_size()) * size}};
}

const LaunchPlanEntry entry("hadamard_attention", describe);

}  // namespace
}  // namespace elsa::hadamard_attention
