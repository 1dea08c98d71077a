// The steps of local attention on a tile of a sample and a head, with their scratch.
#pragma once

#include "../tile.h"
#include "dots.h"
#include "softmax.h"
#include "sums.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The tile of a unit, as all steps see it.
template <typename T>
struct LocalWork {
  const LocalPlan& plan;
  LocalUnit unit;
  int64_t sample;
  LocalTile tile;
  LaneVectors<T> vectors;

  LocalWork(const LocalPlan& of, const LocalShape& shape, int64_t index, int64_t in_sample)
      : plan(of), unit(of.unit(index)), sample(in_sample), tile(of, shape, unit), vectors(tile.x) {}

  bool is_empty() const { return tile.is_empty(); }

  // Call f(strip) for the strips of the tile.
  template <typename Function>
  void for_each_strip(const Function& f) const {
    for (int64_t y = 0; y < tile.y.count; y += plan.strip_rows) {
      f(Strip{y, smaller(plan.strip_rows, tile.y.count - y)});
    }
  }

  // Call f(taps) for the taps of every row of a strip and vector of it, [y][vector][tap][lane].
  template <typename Function>
  void for_each_vector(const Strip& strip, T* numbers, const Function& f) const {
    const int64_t columns = plan.x.kernel_size, size = plan.y.kernel_size * columns * lanes<T>;
    for (int64_t y = 0; y < strip.count; ++y) {
      for (int64_t v = 0; v < vectors.count; ++v, numbers += size) {
        f(LaneTaps<T>{numbers, tile.y.taps(strip.first + y), v, columns});
      }
    }
  }
};

// Call f(work, head, number) for the units of a phase, or all if it is −1, in chunks [first, last) of them, a chunk
// being that of a head of a sample: see cpu/local/launch.h. `number` is the chunk's.
template <typename T, typename Function>
void for_each_unit_of_chunks(const LocalPlan& plan, const LocalShape& shape, int64_t chunks, int64_t phase,
                             int64_t first, int64_t last, const Function& f) {
  for (int64_t number = first; number < last; ++number) {
    const int64_t head = number % shape.heads, chunk = number / shape.heads % chunks;
    const int64_t sample = number / shape.heads / chunks, end = (chunk + 1) * plan.units() / chunks;
    for (int64_t unit = chunk * plan.units() / chunks; unit < end; ++unit) {
      if (phase >= 0 && !plan.in_phase(unit, phase)) continue;
      const LocalWork<T> work(plan, shape, unit, sample);
      if (!work.is_empty()) f(work, head, number);
    }
  }
}

// What the work on a unit is made of.
struct LocalSteps {
  bool products, sums;
};

// What the next unit of work reads and writes, brought into the second-level cache while this one is computed: a few
// pixels between any two pieces of its work, since only some dozen lines can be on their way at a time.
template <typename T>
class LocalPrefetch {
 public:
  // `next_head` is the head of the next unit.
  LocalPrefetch(const LocalWork<T>& work, const LocalWork<T>& next, int64_t next_head, const LocalSteps& steps)
      : next_(next), head_(next_head) {
    const int64_t tap_shares = divide_up(work.plan.x.kernel_size, int64_t(dot_taps_at_once));
    if (steps.products) pieces_ += work.tile.y.length * work.vectors.count * tap_shares;
    if (steps.sums) pieces_ += work.tile.y.count * divide_up(work.tile.x.count, int64_t(sum_pixels[0]));
  }

  // The tile's pixels of a map. Those that its windows have beyond the tile belong to other tiles.
  void add(const MapView& map, int64_t channels) {
    const LocalTile& tile = next_.tile;
    if (tile.is_empty()) return;
    maps_[count_++] = Prefetch(residue_of(map, next_.plan, next_.unit), next_.sample, head_ * channels, channels,
                               tile.y.first, tile.x.first, tile.y.count, tile.x.count);
    pixels_ = divide_up(count_ * tile.y.count * tile.x.count, pieces_);
  }

  // Not inlined: the loops around it need every register.
  __attribute__((noinline)) void operator()() {
    if (at_ == count_) return;
    maps_[at_].fetch(pixels_);
    if (maps_[at_].done()) ++at_;
  }

 private:
  const LocalWork<T>& next_;
  int64_t head_;
  Prefetch maps_[4];
  int64_t count_ = 0, at_ = 0;
  int64_t pieces_ = 0, pixels_ = 0;  // of work; and those to fetch after each
};

// Call f(work, head, prefetch of the next unit) for units [first, last): see cpu/local/launch.h.
template <typename T, typename Function>
void for_each_unit(const LocalPlan& plan, const LocalShape& shape, int64_t first, int64_t last, const LocalSteps& steps,
                   const Function& f) {
  const auto work_of = [&](int64_t unit) {
    return LocalWork<T>(plan, shape, unit / shape.heads % plan.units(), unit / shape.heads / plan.units());
  };
  for (int64_t unit = first; unit < last; ++unit) {
    const LocalWork<T> work = work_of(unit);
    if (work.is_empty()) continue;
    const int64_t after = smaller(unit + 1, last - 1);
    const LocalWork<T> next = work_of(after);
    LocalPrefetch<T> ahead(work, next, after % shape.heads, steps);
    f(work, unit % shape.heads, ahead);
  }
}

// The gradient of a strip's logits in the place of that of its attention.
template <typename T>
void softmax_backward(const LocalWork<T>& work, const Strip& strip, T* attn, T* grad) {
  work.for_each_vector(strip, attn, [&](const LaneTaps<T>& weights) {
    softmax_taps_backward(
        weights, LaneTaps<T>{grad + (weights.numbers - attn), weights.output, weights.vector, weights.columns});
  });
}

// Zero for the taps of a strip that do not count: nothing depends on the gradient of their logits.
template <typename T>
void clear_uncounted(const LocalWork<T>& work, const Strip& strip, T* grad) {
  work.for_each_vector(strip, grad, [&](const LaneTaps<T>& taps) {
    const LaneVector<T>& lane = work.vectors[taps.vector];
    for (int64_t l = 0; l < lane.count; ++l) {
      const Taps& in = work.tile.x.taps(lane.first + l);
      if (in.begin == 0 && in.end == taps.columns) continue;
      taps.for_each_row([&](T* row, int64_t) {
        for (int64_t j = 0; j < taps.columns; ++j) {
          if (j < in.begin || j >= in.end) row[j * lanes<T> + l] = T(0);
        }
      });
    }
  });
}

// How many numbers the taps of a strip are at most.
template <typename T>
int64_t tap_numbers(const LocalPlan& plan) {
  return plan.strip_rows * vectors_of<T>(plan.tiling.columns) * plan.y.kernel_size * plan.x.kernel_size * lanes<T>;
}

// Products of a map's channels at every output with another's at its taps.
template <typename T>
class Products {
 public:
  Products(const LocalPlan& plan, int64_t channels)
      : channels_(channels),
        outputs_(plan.strip_rows * vectors_of<T>(plan.tiling.columns) * channels * lanes<T>),
        window_(plan.window_rows * channels * plane_pitch<T>(plan.window_columns) + lanes<T>) {}

  // Take the window of a tile from a map, its channels from `channel` on.
  void take(const LocalWork<T>& work, const MapView& sources, int64_t channel) {
    pack_planes<T>(sources, work.sample, channel, channels_, plane_pitch<T>(work.tile.x.length), work.plan, work.tile,
                   window_);
  }

  template <typename Between = Nothing>
  void compute(const LocalWork<T>& work, const Strip& strip, const MapView& outputs, int64_t channel, T* to,
               Between&& between = {}) {
    pack_lanes<T>(residue_of(outputs, work.plan, work.unit), work.sample, channel, channels_, work.tile, strip,
                  work.vectors, outputs_);
    dots<T>(work.tile, strip, work.vectors, work.plan.y, work.plan.x, channels_, outputs_, window_,
            plane_pitch<T>(work.tile.x.length), to, between);
  }

 private:
  int64_t channels_;
  Scratch<T> outputs_, window_;
};

// Sums over the taps, by slices of channels: of the neighbours of every output, or to them.
template <typename T, int Vectors>
class Sums {
 public:
  Sums(const LocalPlan& plan, int64_t channels)
      : channels_(channels),
        window_size_(plan.window_rows * plan.window_columns * width),
        window_(window_size_ * divide_up(channels, width)),
        pixels_(plan.strip_rows * plan.tiling.columns * width) {}

  // Take the window of a tile from a map, its channels from `channel` on; or begin with zeros, and add what has come
  // together to a map of sums, which lies as scratch.
  void take(const LocalWork<T>& work, const MapView& sources, int64_t channel) {
    for_each_slice([&](int64_t first, int64_t count, T* window) {
      pack_pixels<T>(sources, work.sample, channel + first, count, width, work.plan, work.tile, window);
    });
  }
  void begin(const LocalWork<T>& work) {
    for_each_slice(
        [&](int64_t, int64_t, T* window) { zero<T>(window, work.tile.y.length * work.tile.x.length * width); });
  }
  void finish(const LocalWork<T>& work, const MapView& sums, int64_t channel) {
    for_each_slice([&](int64_t first, int64_t count, T* window) {
      add_pixels<T>(sums, work.sample, channel + first, count, width, work.tile, window);
    });
  }

  // output = scale · Σ weight · source.
  template <typename Between = Nothing>
  void gather(const LocalWork<T>& work, const Strip& strip, const T* weights, const MapView& outputs, int64_t channel,
              T scale, Between&& between = {}) {
    const MapView out = residue_of(outputs, work.plan, work.unit);
    for_each_slice([&](int64_t first, int64_t count, T* window) {
      const bool own = lies_as_scratch<T>(out) && count == width;
      const Pixels<T> to = pixels_of(work, strip, out, channel + first, own);
      gather_strip<T, Vectors>({weights, window, to.data, to.row, to.column, scale}, work.tile, strip, work.vectors,
                               work.plan.y, work.plan.x, between);
      for (int64_t y = 0; !own && y < strip.count; ++y) {
        unpack_row<T>(out, work.sample, channel + first, count, width, work.tile.y.first + strip.first + y,
                      work.tile.x.first, work.tile.x.count, to.data + y * to.row);
      }
    });
  }

  // source += Σ weight · scale · output.
  void scatter(const LocalWork<T>& work, const Strip& strip, const T* weights, const MapView& outputs, int64_t channel,
               T scale) {
    const MapView out = residue_of(outputs, work.plan, work.unit);
    for_each_slice([&](int64_t first, int64_t count, T* window) {
      const bool own = lies_as_scratch<T>(out) && count == width;
      const Pixels<T> from = pixels_of(work, strip, out, channel + first, own);
      if (!own) {
        with_type<T>(out.dtype, [&](auto type) {
          using From = decltype(type);
          for (int64_t y = 0; y < strip.count; ++y) {
            const From* row = out.at<const From>(work.sample, channel + first, work.tile.y.first + strip.first + y,
                                                 work.tile.x.first);
            pack_row<T, From>({row, out.channel_stride, out.column_stride, work.tile.x.count, count}, width, width,
                              from.data + y * from.row);
          }
        });
      }
      scatter_strip<T, Vectors>({weights, window, from.data, from.row, from.column, scale}, work.tile, strip,
                                work.vectors, work.plan.y, work.plan.x);
    });
  }

 private:
  static constexpr int64_t width = Vectors * lanes<T>;

  // Call f(first channel, channels, window).
  template <typename Function>
  void for_each_slice(const Function& f) {
    T* window = window_;
    for (int64_t first = 0; first < channels_; first += width, window += window_size_) {
      f(first, smaller(width, channels_ - first), window);
    }
  }

  Pixels<T> pixels_of(const LocalWork<T>& work, const Strip& strip, const MapView& map, int64_t channel, bool own) {
    if (!own) return {pixels_, work.tile.x.count * width, width};
    T* data = map.at<T>(work.sample, channel, work.tile.y.first + strip.first, work.tile.x.first);
    return {data, map.row_stride, map.column_stride};
  }

  int64_t channels_, window_size_;
  Scratch<T> window_, pixels_;
};

// Call f(std::integral_constant<int, vectors>()) for the vectors of channels that `channels` are worked on in.
template <typename T, typename Function>
ELSA_INLINE void choose_vectors(int64_t channels, const Function& f) {
  channels > lanes<T> ? f(std::integral_constant<int, 2>()) : f(std::integral_constant<int, 1>());
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
