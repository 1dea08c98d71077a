// Products of every output's channels with those of its neighbours: Σ_c query[c][y][x] · key[c][…] for every tap.
//
// Lanes are outputs, so that a product needs no sum over lanes. A row of the window meets several rows of outputs, each
// by a tap of its own, and several taps of each: they share what is loaded.
//
//   sum[row r][tap t][lane] += query[r][c][lane] · key[c][base + t + pattern[lane]]
#pragma once

#include "lanes.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// Rows and taps whose sums stay in registers.
constexpr int dot_rows_at_once = vector_registers == 32 ? 7 : 3, dot_taps_at_once = 3;

constexpr int64_t dot_channels_at_once = 64;

template <typename T>
struct DotRow {
  const T* query;
  T* to;
};

template <typename T, Reading reading>
ELSA_INLINE Vector<T> load_key(const T* from, const typename Simd<T>::Lanes& pattern) {
  if constexpr (reading == Reading::straight) {
    return load_unaligned(from);
  } else if constexpr (reading == Reading::shuffled) {
    return shuffle<T>(load_unaligned(from), pattern);
  } else {
    Vector<T> v;
    for (int l = 0; l < lanes<T>; ++l) v[l] = from[pattern[l]];
    return v;
  }
}

// The sums of `Rows` rows, for `Taps` taps from `tap` on.
template <typename T, Reading reading, int Rows, int Taps>
ELSA_INLINE void dot(int64_t channels, const DotRow<T>* rows, int64_t tap, const T* key, int64_t pitch,
                     const typename Simd<T>::Lanes& pattern) {
  constexpr int L = lanes<T>;
  const T* query[Rows];
  for (int r = 0; r < Rows; ++r) query[r] = rows[r].query;
  key += tap;
  // In blocks: the sum of very many channels would lose the last ones.
  for (int64_t first = 0; first < channels || first == 0; first += dot_channels_at_once) {
    Vector<T> sum[Rows][Taps] = {};
    const int64_t last = smaller(first + dot_channels_at_once, channels);
    for (int64_t c = first; c < last; ++c, key += pitch) {
      Vector<T> keys[Taps];
      for (int t = 0; t < Taps; ++t) keys[t] = load_key<T, reading>(key + t, pattern);
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) {
        Vector<T> factor = load(query[r] + c * L);
        settle(factor);  // else every product loads it again
#pragma GCC unroll 4
        for (int t = 0; t < Taps; ++t) sum[r][t] += factor * keys[t];
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int t = 0; t < Taps; ++t) {
        T* to = rows[r].to + (tap + t) * L;
        store(to, first == 0 ? sum[r][t] : load(to) + sum[r][t]);
      }
    }
  }
}

// Choose the code for `taps` taps, no more than the template's.
template <typename T, Reading reading, int Rows, int Taps>
ELSA_INLINE void dot_some(int64_t taps, int64_t channels, const DotRow<T>* rows, int64_t tap, const T* key,
                          int64_t pitch, const typename Simd<T>::Lanes& pattern) {
  if constexpr (Taps > 1) {
    if (taps < Taps) return dot_some<T, reading, Rows, Taps - 1>(taps, channels, rows, tap, key, pitch, pattern);
  }
  dot<T, reading, Rows, Taps>(channels, rows, tap, key, pitch, pattern);
}

// All taps of `Rows` rows, or of as many as there are, in shares that differ by one at most: the last of them would
// else leave registers idle.
template <typename T, Reading reading, int Rows, typename Between>
ELSA_INLINE void dot_taps(int64_t channels, const DotRow<T>* rows, int64_t count, int64_t taps, const T* key,
                          int64_t pitch, const typename Simd<T>::Lanes& pattern, Between& between) {
  if constexpr (Rows > 1) {
    if (count < Rows) {
      return dot_taps<T, reading, Rows - 1>(channels, rows, count, taps, key, pitch, pattern, between);
    }
  }
  constexpr int most = Rows > 2 ? dot_taps_at_once : 2 * dot_taps_at_once;
  const int64_t shares = divide_up(taps, int64_t(most));
  for (int64_t share = 0; share < shares; ++share) {
    const int64_t tap = share * taps / shares, taps_now = (share + 1) * taps / shares - tap;
    dot_some<T, reading, Rows, most>(taps_now, channels, rows, tap, key, pitch, pattern);
    between();
  }
}

// One row of the window, against the `count` rows of outputs that look at it.
template <typename T, Reading reading, typename Between>
__attribute__((noinline)) void dot_row(int64_t channels, const DotRow<T>* rows, int64_t count, int64_t taps,
                                       const T* key, int64_t pitch, const typename Simd<T>::Lanes& pattern,
                                       Between& between) {
  const int64_t shares = divide_up(count, int64_t(dot_rows_at_once));
  for (int64_t share = 0; share < shares; ++share) {
    const int64_t row = share * count / shares, rows_now = (share + 1) * count / shares - row;
    dot_taps<T, reading, dot_rows_at_once>(channels, rows + row, rows_now, taps, key, pitch, pattern, between);
  }
}

// What a row of `window` pixels in planes takes: kernels read a vector from any of them on.
template <typename T>
int64_t plane_pitch(int64_t window) {
  return divide_up(window, int64_t(lanes<T>)) * lanes<T>;
}

// to[y][vector][tap][lane] for a strip: `query` are planes of its outputs, [y][vector][channel][lane], `key` those of
// the tile's window, [row][channel][pitch], with a vector more at the end. Rows of taps that do not count are left as
// they were.
template <typename T, typename Between>
void dots(const LocalTile& tile, const Strip& strip, const LaneVectors<T>& vectors, const Neighbourhood& y,
          const Neighbourhood& x, int64_t channels, const T* query, const T* key, int64_t pitch, T* to,
          Between& between) {
  constexpr int64_t L = lanes<T>;
  const int64_t taps = y.kernel_size * x.kernel_size;
  Scratch<DotRow<T>> rows(strip.count);
  const int64_t last_row = tile.y.taps(strip.first + strip.count - 1).first + y.kernel_size;
  for (int64_t v = 0; v < vectors.count; ++v) {  // whose queries then stay in the first-level cache
    for (int64_t row = tile.y.taps(strip.first).first; row < last_row; ++row) {
      int64_t count = 0;
      for (int64_t k = 0; k < strip.count; ++k) {
        const Taps& in = tile.y.taps(strip.first + k);
        const int64_t tap = row - in.first;
        if (tap < in.begin || tap >= in.end) continue;
        const int64_t at = k * vectors.count + v;
        rows[count++] = {query + at * channels * L, to + (at * taps + tap * x.kernel_size) * L};
      }
      if (count == 0) continue;
      const LaneVector<T>& lane = vectors[v];
      const T* from = key + row * channels * pitch + lane.base;
      switch (lane.reading) {
        case Reading::straight:
          dot_row<T, Reading::straight>(channels, rows, count, x.kernel_size, from, pitch, lane.pattern, between);
          break;
        case Reading::shuffled:
          dot_row<T, Reading::shuffled>(channels, rows, count, x.kernel_size, from, pitch, lane.pattern, between);
          break;
        case Reading::anywhere:
          dot_row<T, Reading::anywhere>(channels, rows, count, x.kernel_size, from, pitch, lane.pattern, between);
          break;
      }
    }
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
