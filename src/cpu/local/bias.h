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
        const TapsOfLanes taps(*this, tile, vectors[v]);
        for (int64_t row = 0; row < rows_; ++row) {
          const From* numbers = from ? from + row * bias_.columns(shape_) : nullptr;
          read_row(numbers, taps, factor, numbers_ + (v * rows_ + row) * columns() * L);
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

  // Where in a row of the bias the first tap of every lane is, and which taps count.
  struct TapsOfLanes {
    using Lanes = typename Simd<T>::Lanes;
    Lanes place, begin, end;
    bool alike = true;  // the lanes'

    TapsOfLanes(const LaneBias& of, const LocalTile& tile, const LaneVector<T>& lane) {
      for (int64_t l = 0; l < L; ++l) {
        const Taps& taps = tile.x.taps(output(lane, l));
        place[l] = of.bias_.place(of.shape_.x, taps.offset, 0), begin[l] = taps.begin, end[l] = taps.end;
        alike = alike && place[l] == place[0] && taps.begin == 0 && taps.end == of.columns();
      }
    }
    Lanes uncounted(Lanes tap) const { return (tap < begin) | (tap >= end); }
  };

  template <typename From>
  void read_row(const From* numbers, const TapsOfLanes& taps, T factor, T* to) const {
    const int64_t size = bias_.columns(shape_);
    Vector<T> row{};
    if (numbers && size <= L) row = load_some<T>(numbers, size);
    typename TapsOfLanes::Lanes in_every_lane{};  // the tap
    for (int64_t tap = 0; tap < columns(); ++tap, in_every_lane += 1, to += L) {
      if (numbers && taps.alike) {
        store(to, broadcast(convert<T>(numbers[taps.place[0] + tap]) * factor));
        continue;
      }
      Vector<T> added{};
      if (numbers && size <= L) {
        added = shuffle<T>(row, taps.place + in_every_lane);
      } else if (numbers) {
        for (int l = 0; l < L; ++l) added[l] = convert<T>(numbers[taps.place[l] + tap]);
      }
      store(to, taps.uncounted(in_every_lane) ? broadcast(-T(INFINITY)) : added * factor);
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
