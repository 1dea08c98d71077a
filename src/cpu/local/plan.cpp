#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <tuple>

#include "../capability.h"

namespace elsa::cpu {
namespace {

Neighbourhood on_a_residue(Neighbourhood axis) {
  axis.dilation = 1;
  return axis;
}

// How far a tap lies from its output, at most, on a residue.
int64_t farthest(const Neighbourhood& axis) {
  return axis.border == Border::shift ? axis.kernel_size - 1 + axis.window_stride - 1 : axis.kernel_size / 2;
}

// The sources that `outputs` neighbouring outputs read at most, on a residue.
int64_t window_of(const Neighbourhood& axis, int64_t outputs) {
  const int64_t further = axis.border == Border::shift ? axis.window_stride - 1 : 0;
  return outputs + further + axis.kernel_size - 1;
}

}  // namespace

TileColours::TileColours(const Neighbourhood& axis, int64_t tile_length, int64_t tiles)
    : tiles_(tiles), period_(1 + divide_up(2 * farthest(axis), tile_length)), turns_(tiles) {
  if (axis.border == Border::circular) {  // the last tile, which may be short, lies beside the first
    ++period_;
    turns_ = tiles - tiles % period_;
  }
  count_ = turns_ < tiles ? (turns_ > 0 ? period_ : 0) + tiles - turns_ : std::min(period_, tiles);
}

LocalPlan::LocalPlan(const LocalShape& shape, int64_t most_rows, int64_t most_columns, int64_t most_strip_rows)
    : y(on_a_residue(shape.y)),
      x(on_a_residue(shape.x)),
      residues_y(shape.y.dilation),
      residues_x(shape.x.dilation),
      tiling(even_tiling(divide_up(shape.height, residues_y), divide_up(shape.width, residues_x), most_rows,
                         most_columns)),
      strip_rows(divide_up(tiling.rows, divide_up(tiling.rows, most_strip_rows))),
      window_rows(window_of(y, tiling.rows)),
      window_columns(window_of(x, tiling.columns)),
      residues_overlap(y.border == Border::circular &&
                       (shape.height % residues_y != 0 || shape.width % residues_x != 0)),
      colours_y(y, tiling.rows, tiling.down),
      colours_x(x, tiling.columns, tiling.across) {}

LocalUnit LocalPlan::unit(int64_t index) const {
  const int64_t tile = index % tiling.count(), residue = index / tiling.count();
  return {residue / residues_x, residue % residues_x, tile / tiling.across, tile % tiling.across};
}

bool LocalPlan::in_phase(int64_t index, int64_t phase) const {
  if (residues_overlap) return index == phase;
  const LocalUnit in = unit(index);
  return colours_y.of(in.tile_y) * colours_x.count() + colours_x.of(in.tile_x) == phase;
}

std::pair<Neighbourhood, Neighbourhood> requested_neighbourhoods(PlanRequest& request, int64_t height, int64_t width) {
  const std::optional<Border> border = border_named(request.word("border", "zeros"));
  if (!border) throw std::invalid_argument("border must be zeros, mask, circular or shift");
  const auto size = request.positive_pair("kernel_size"), dilation = request.positive_pair("dilation", 1);
  const auto window_stride = request.positive_pair("window_stride", 1);
  const auto causal = request.flags("causal");
  const auto axis = [&](int k, int64_t length) {
    return Neighbourhood{size[k],  dilation_within(dilation[k], length, *border), 1, *border, window_stride[k],
                         causal[k]};
  };
  const bool fits = product({size[0], dilation[0]}) <= height && product({size[1], dilation[1]}) <= width;
  if (*border == Border::shift && !fits) {
    throw std::invalid_argument("border shift needs kernel_size · dilation to fit in the map");
  }
  return {axis(0, height), axis(1, width)};
}

LocalShape requested_local_shape(PlanRequest& request) {
  LocalShape shape{};
  shape.batch = request.positive("batch"), shape.heads = request.positive("heads");
  const int64_t channels = request.positive("channels");
  shape.channels = channels / shape.heads;
  shape.height = request.positive("height"), shape.width = request.positive("width");
  std::tie(shape.y, shape.x) = requested_neighbourhoods(request, shape.height, shape.width);
  request.expect_no_more();
  if (channels % shape.heads != 0) throw std::invalid_argument("it needs heads that divide channels");
  return shape;
}

LaunchPlan describe(const LocalShape& shape, const LocalPlan& plan) {
  const int64_t size = shape.x.kernel_size;
  const bool compiled = size == 3 || size == 5 || size == 7;
  return {
      {"instruction set", name(capability())},
      {"sums", compiled ? "K = " + std::to_string(size) + " compiled, for pixels whose taps are neighbours" : "any K"},
      {"maps of neighbours", plan.residues_y * plan.residues_x},
      {"tile rows", plan.tiling.rows},
      {"tile columns", plan.tiling.columns},
      {"strip rows", plan.strip_rows},
      {"window rows", plan.window_rows},
      {"window columns", plan.window_columns},
      {"units", shape.batch * shape.heads * plan.units()},
      {"backward phases", plan.phases()}};
}

}  // namespace elsa::cpu
