// How the CPU cuts a map for local attention: what its kernels go by, and what launch_plan shows.
//
// Outputs `dilation` apart are a map of their own, on which neighbours are one apart. It has a residue along both axes:
// row `place` of it is row place · dilation + residue of the whole. Every residue is cut into the same tiles, of which
// the last may be empty.
#pragma once

#include <utility>

#include "../../core/launch_plan.h"
#include "../../core/local_attention.h"
#include "../tiling.h"

namespace elsa::cpu {

// Some of the rows of a tile's outputs.
struct Strip {
  int64_t first, count;
};

// A unit of work in a sample and a head.
struct LocalUnit {
  int64_t residue_y, residue_x, tile_y, tile_x;
};

// Tiles along an axis in as few colours as keep tiles of one colour from sharing a source.
class TileColours {
 public:
  TileColours(const Neighbourhood& axis, int64_t tile_length, int64_t tiles);

  int64_t count() const { return count_; }
  int64_t of(int64_t tile) const { return tile < turns_ ? tile % period_ : count_ - tiles_ + tile; }

 private:
  int64_t tiles_, period_;  // tiles from one to the next of its colour
  int64_t turns_;           // tiles that take the colours in turn; the others have one of their own each
  int64_t count_;
};

struct LocalPlan {
  Neighbourhood y, x;                   // on a residue: with a dilation of 1
  int64_t residues_y, residues_x;       // the dilations
  Tiling tiling;                        // of the largest residue
  int64_t strip_rows;                   // of a tile whose taps are in memory at a time, at most
  int64_t window_rows, window_columns;  // sources that a tile reads at most
  bool residues_overlap;                // circular axes that no multiple of the dilation fits: residues share sources

  LocalPlan(const LocalShape& shape, int64_t most_rows, int64_t most_columns, int64_t most_strip_rows);

  int64_t units() const { return residues_y * residues_x * tiling.count(); }
  LocalUnit unit(int64_t index) const;

  // Phases of a pass that adds to the sources: units of one phase share none. Neither the phases nor their order
  // depends on the number of threads.
  int64_t phases() const { return residues_overlap ? units() : colours_y.count() * colours_x.count(); }
  bool in_phase(int64_t index, int64_t phase) const;

 private:
  TileColours colours_y, colours_x;
};

// What a request to launch_plan says that outputs look at, along both axes of a map.
std::pair<Neighbourhood, Neighbourhood> requested_neighbourhoods(PlanRequest& request, int64_t height, int64_t width);

// What a request to launch_plan says of a call, and what it gets by `plan`.
LocalShape requested_local_shape(PlanRequest& request);
LaunchPlan describe(const LocalShape& shape, const LocalPlan& plan);

}  // namespace elsa::cpu
