// How hadamard_attention is cut on the CPU, and the description of it.
#include <algorithm>
#include <stdexcept>

#include "elsa/launch_plan.h"

namespace elsa::cpu {
namespace {

int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

}  // namespace

HadamardPlan::HadamardPlan(const HadamardShape& of, int64_t block_width, bool has_permutations)
    : shape(of), block(block_width), permutes(has_permutations) {
  // A tile's hidden map takes a part of the second-level cache; enough tiles for as many threads. Results per pixel do
  // not depend on it.
  constexpr int64_t tile_elements = 32 * 1024, most_columns = 8 * pixels_at_once, enough_tiles = 16, least_rows = 2;
  constexpr int64_t band_pixels = 112, chunk_pixels = 192, most_chunks = 32;
  const int64_t height = shape.out_height(), width = shape.out_width();
  across = std::max<int64_t>(1, parts(width, most_columns));
  columns = std::max<int64_t>(1, parts(parts(width, across), pixels_at_once)) * pixels_at_once;
  across = std::max<int64_t>(1, parts(width, columns));
  rows = std::max<int64_t>(1, tile_elements / (columns * shape.channels));
  const int64_t wanted = parts(enough_tiles, std::max<int64_t>(1, shape.batch * across));
  rows = std::min(rows, std::max(least_rows, height / wanted));
  down = std::max<int64_t>(1, parts(height, rows));
  rows = parts(height, down);
  band = std::clamp<int64_t>(band_pixels / columns, 1, std::max<int64_t>(1, rows));
  chunks =
      std::clamp<int64_t>(shape.batch * height * width / chunk_pixels, 1, std::clamp<int64_t>(tiles(), 1, most_chunks));
}

int64_t HadamardPlan::window_rows() const {
  return std::min(shape.out_height(), rows + (shape.kernel_size - 1) * shape.dilation);
}

int64_t HadamardPlan::window_columns() const {
  return std::min(columns + (shape.kernel_size - 1) * shape.dilation, shape.out_width() + 2 * columns);
}

HadamardPlan hadamard_plan(const HadamardShape& shape, DType dtype) {
  const int64_t bytes = hadamard_attention().vector_bytes;
  return {shape, 2 * bytes / (dtype == DType::float64 ? 8 : 4), bytes > 16};
}

LaunchPlan launch_plan(const HadamardShape& shape, DType dtype) {
  const auto positive = {shape.batch,       shape.channels, shape.out_height(), shape.out_width(), shape.heads,
                         shape.kernel_size, shape.dilation, shape.groups,       shape.proj_groups};
  if (std::min(positive) < 1 || shape.kernel_size % 2 == 0 || shape.channels % shape.groups != 0 ||
      shape.channels % shape.proj_groups != 0 || shape.attn_channels() % shape.proj_groups != 0) {
    throw std::invalid_argument(
        "launch_plan: hadamard_attention needs positive sizes, an odd kernel_size, groups that divide channels, and "
        "proj_groups that divide channels and heads * kernel_size²");
  }
  const HadamardPlan plan = hadamard_plan(shape, dtype);
  const int64_t size = dtype == DType::float64 ? 8 : 4, compiled = dtype == DType::float64 ? 0 : plan.compiled_taps();
  const int64_t common = plan.window_size() + plan.spread_size() + plan.row_size();
  constexpr const char* spreads[] = {"lie spread in memory", "are permuted", "are broadcast"};
  return {{"instruction set", name(capability())},
          {"convolution", compiled > 0 ? "direct, K = " + std::to_string(compiled) + " compiled" : "direct, any K"},
          {"channels of a group", plan.group_width() == 1 ? "one" : spreads[int(plan.spread())]},
          {"tile rows", plan.rows},
          {"tile columns", std::min(plan.columns, shape.out_width())},
          {"rows at once", plan.band},
          {"tiles", plan.tiles()},
          {"chunks of partial sums", plan.chunks},
          {"partial sums bytes", plan.chunks * plan.partial_size() * size},
          {"forward scratch bytes per thread", (common + plan.hidden_size() + plan.logits_size()) * size},
          {"backward scratch bytes per thread", (common + 3 * plan.hidden_size() + plan.logits_size()) * size}};
}

}  // namespace elsa::cpu
