#include <algorithm>

#include "elsa/hadamard_attention.h"

namespace elsa::cpu {
namespace {

int64_t parts(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

}  // namespace

HadamardPlan::HadamardPlan(const HadamardShape& of, int64_t block_width) : shape(of), block(block_width) {
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
  return {shape, 2 * hadamard_attention().vector_bytes / (dtype == DType::float64 ? 8 : 4)};
}

}  // namespace elsa::cpu
