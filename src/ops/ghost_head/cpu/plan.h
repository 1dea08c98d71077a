// How the CPU does a pass of ghost_head: what its kernels go by, and what launch_plan shows.
#pragma once

#include <vector>

#include "../../../cpu/dispatch.h"
#include "../../../cpu/local/plan.h"
#include "../contract.h"

namespace elsa::ghost_head {

enum class Pass { forward, adjoint, reduce };

struct Plan {
  cpu::Tiling tiling;                            // of the pass's own grid: the output's, or in the adjoint value's
  Neighbourhood neighbourhood;                   // of a pixel of that grid among the sources
  int64_t spacing, source_height, source_width;  // sources lie `spacing` apart, with zeros between them
  int64_t slice;                                 // channels that are worked on at once: a vector or two
  int64_t compiled_taps;  // K where the gather's loop is compiled for K × K taps, else 0; for tiles that all taps reach
  int64_t window_pixels;  // sources that a tile reads at most

  // `lanes` are those of a vector in the accumulation type.
  Plan(const Shape& shape, Pass pass, int64_t lanes);
};

// Whether the sums and products of local attention take a call that is not square.
inline bool is_local(const Shape& shape, bool has_matrices) {
  return shape.y.stride == 1 && shape.x.stride == 1 && !has_matrices;
}

inline LocalShape local_shape(const Shape& shape) {
  return {shape.batch, shape.heads, shape.head_channels(), shape.height, shape.width, shape.y, shape.x, 1};
}

// A tile's window and the taps of a strip stay in the second-level cache; 14 and 28 divide the maps of Swin.
inline cpu::LocalPlan local_plan(const Shape& shape) { return {local_shape(shape), 28, 28, 14}; }

// What a result looks at along an axis: the position of a source, and the tap by which it does.
struct Neighbour {
  int64_t position, tap;
};

// The neighbours of every result of an axis: sources in the map, by the taps that count.
class Neighbours {
 public:
  static Neighbours of_outputs(const Neighbourhood& axis, int64_t length);
  static Neighbours of_sources(const Neighbourhood& axis, int64_t length);  // outputs that look at them

  Neighbours(const Neighbours&) = delete;

  ELSA_INLINE_HERE int64_t count() const { return count_; }
  ELSA_INLINE_HERE const Neighbour* begin(int64_t result) const { return first_ + starts_[result]; }
  ELSA_INLINE_HERE const Neighbour* end(int64_t result) const { return first_ + starts_[result + 1]; }

 private:
  Neighbours(std::vector<Neighbour> all, std::vector<int64_t> starts);

  std::vector<Neighbour> all_;
  std::vector<int64_t> starts_of_;
  // The same for kernels, which are compiled once per instruction set and call no function of a vector.
  const Neighbour* first_;
  const int64_t* starts_;
  int64_t count_;
};

// Partial results of each of `sums` sums over pixels: enough for many threads, and a bounded number of them.
int64_t chunks(const Shape& shape, int64_t sums);

// Units of work: a head of a tile of a sample, in that order from the innermost, or of a chunk of a sum.
struct VectorKernels {
  int64_t vector_bytes, pixels_at_once;
  void (*gather)(const Gather& pass, const Plan& plan, int64_t first_unit, int64_t last_unit);
  void (*reduce)(const Reduce& pass, const Plan& plan, int64_t first_unit, int64_t last_unit);
  // Of what is_local. Units: see cpu/local/launch.h.
  void (*gather_local)(const Gather& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit);
  void (*scatter_local)(const Gather& pass, const cpu::LocalPlan& plan, int64_t chunks, int64_t phase, int64_t first,
                        int64_t last);
  void (*products_local)(const Reduce& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit);
  // Of everything else. Units: a head of a row of a sample, or of a chunk of a sum.
  void (*gather_any)(const Gather& pass, const Neighbours& rows, const Neighbours& columns, int64_t first_unit,
                     int64_t last_unit);
  void (*reduce_channels_any)(const Reduce& pass, const Neighbours& rows, const Neighbours& columns, int64_t first_unit,
                              int64_t last_unit);
  void (*reduce_pixels_any)(const Reduce& pass, const Neighbours& rows, const Neighbours& columns, int64_t first_unit,
                            int64_t last_unit);
};

ELSA_VECTOR_KERNELS(VectorKernels)

}  // namespace elsa::ghost_head
