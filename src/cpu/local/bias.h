// What is added to the products of a tile, as the lanes find it: the bias of every tap, and −∞ where a lane's tap does
// not count. Its gradient is summed up in the same places.
#pragma once

#include <cmath>

#include "lanes.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// The rows of a bias that taps of a tile read, as [vector][row][column of taps][lane].
template <typename T>
class LaneBias {
 public:
  LaneBias(const LocalPlan& plan, const LocalShape& shape, const BiasView& bias)
      : shape_(shape),
        bias_(bias),
        rows_(bias.data ? bias.rows(shape) : 1),
        numbers_(vectors_of<T>(plan.tiling.columns) * rows_ * shape.x.kernel_size * lanes<T>) {}

  // Those of a tile, times `factor`.
  void read(int64_t sample, int64_t head, const LocalTile& tile, const LaneVectors<T>& vectors, T factor) {
    bool every_tap_counts = true;
    for (int64_t k = 0; k < tile.x.count; ++k) {
      every_tap_counts = every_tap_counts && tile.x.taps(k).begin == 0 && tile.x.taps(k).end == columns();
    }
    given_ = bias_.data != nullptr || !every_tap_counts;
    if (!given_) return;
    with_type<T>(bias_.dtype, [&](auto type) {
      using From = decltype(type);
      const From* from = static_cast<const From*>(bias_.data);
      if (from) from += sample * bias_.batch_stride + head * bias_.head_size(shape_);
      for (int64_t v = 0; v < vectors.count; ++v) {
        for (int64_t row = 0; row < rows_; ++row) {
          T* to = numbers_ + (v * rows_ + row) * columns() * L;
          const From* numbers = from ? from + row * bias_.columns(shape_) : nullptr;
          if (numbers && alike(tile, vectors[v])) {
            numbers += bias_.place(shape_.x, tile.x.taps(vectors[v].first).offset, 0);
            for (int64_t tap = 0; tap < columns(); ++tap) {
              store(to + tap * L, broadcast(convert<T>(numbers[tap]) * factor));
            }
            continue;
          }
          for (int64_t l = 0; l < L; ++l) read_lane(numbers, tile.x.taps(output(vectors[v], l)), factor, to + l);
        }
      }
    });
  }

  bool given() const { return given_; }

  // What the row `tap` of taps of an output gets, [column of taps][lane].
  T* row(int64_t vector, const Taps& output, int64_t tap) {
    const int64_t row = bias_.data ? bias_.place(shape_.y, output.offset, tap) : 0;
    return numbers_ + (vector * rows_ + row) * columns() * L;
  }

  void clear(const LaneVectors<T>& vectors) { zero<T>(numbers_, vectors.count * rows_ * columns() * L); }

  // Add what has been summed up since `clear` to the gradient of a head's bias, (rows, columns).
  void add_to(T* gradient, const LocalTile& tile, const LaneVectors<T>& vectors) {
    for (int64_t v = 0; v < vectors.count; ++v) {
      for (int64_t row = 0; row < rows_; ++row) {
        const T* from = numbers_ + (v * rows_ + row) * columns() * L;
        T* to = gradient + row * bias_.columns(shape_);
        for (int64_t l = 0; l < vectors[v].count; ++l) {
          const int64_t offset = tile.x.taps(output(vectors[v], l)).offset;
          for (int64_t tap = 0; tap < columns(); ++tap) to[bias_.place(shape_.x, offset, tap)] += from[tap * L + l];
        }
      }
    }
  }

 private:
  static constexpr int64_t L = lanes<T>;

  int64_t columns() const { return shape_.x.kernel_size; }
  static int64_t output(const LaneVector<T>& lane, int64_t l) { return lane.first + smaller(l, lane.count - 1); }

  // Whether the taps of all lanes lie alike around their outputs, and count.
  bool alike(const LocalTile& tile, const LaneVector<T>& lane) const {
    for (int64_t l = 0; l < lane.count; ++l) {
      const Taps& taps = tile.x.taps(lane.first + l);
      if (taps.offset != tile.x.taps(lane.first).offset || taps.begin != 0 || taps.end != columns()) return false;
    }
    return true;
  }

  template <typename From>
  void read_lane(const From* numbers, const Taps& taps, T factor, T* to) const {
    for (int64_t tap = 0; tap < columns(); ++tap) {
      T number = 0;
      if (numbers) number = convert<T>(numbers[bias_.place(shape_.x, taps.offset, tap)]) * factor;
      to[tap * L] = tap < taps.begin || tap >= taps.end ? -T(INFINITY) : number;
    }
  }

  const LocalShape& shape_;
  const BiasView& bias_;
  int64_t rows_;
  bool given_ = false;
  Scratch<T> numbers_;
};

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
