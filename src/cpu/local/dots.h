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

// Rows and taps whose sums stay in registers: AVX-512 has 32, the others have 16.
constexpr int dot_rows_at_once = ELSA_VECTOR_BYTES == 64 ? 4 : 3, dot_taps_at_once = ELSA_VECTOR_BYTES == 64 ? 4 : 3;

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

template <typename T, Reading reading, int Rows, int Taps>
ELSA_INLINE void dot(int64_t channels, const DotRow<T>* rows, const T* key, int64_t pitch,
                     const typename Simd<T>::Lanes& pattern) {
  constexpr int L = lanes<T>;
  const T* query[Rows];
  for (int r = 0; r < Rows; ++r) query[r] = rows[r].query;
  // In blocks: the sum of very many channels would lose the last ones.
  for (int64_t first = 0; first < channels || first == 0; first += dot_channels_at_once) {
    Vector<T> sum[Rows][Taps] = {};
    const int64_t last = smaller(first + dot_channels_at_once, channels);
    for (int64_t c = first; c < last; ++c, key += pitch) {
      Vector<T> keys[Taps];
      for (int t = 0; t < Taps; ++t) keys[t] = load_key<T, reading>(key + t, pattern);
#pragma GCC unroll 4
      for (int r = 0; r < Rows; ++r) {
        const Vector<T> factor = load(query[r] + c * L);
#pragma GCC unroll 4
        for (int t = 0; t < Taps; ++t) sum[r][t] += factor * keys[t];
      }
    }
    for (int r = 0; r < Rows; ++r) {
      for (int t = 0; t < Taps; ++t) {
        T* to = rows[r].to + t * L;
        store(to, first == 0 ? sum[r][t] : load(to) + sum[r][t]);
      }
    }
  }
}

// Choose the code for `rows` rows and `taps` taps, both no more than the template's.
template <typename T, Reading reading, int Rows, int Taps>
ELSA_INLINE void dot_some(int64_t rows_left, int64_t taps_left, int64_t channels, const DotRow<T>* rows, const T* key,
                          int64_t pitch, const typename Simd<T>::Lanes& pattern) {
  if constexpr (Rows > 1) {
    if (rows_left < Rows) {
      return dot_some<T, reading, Rows - 1, Taps>(rows_left, taps_left, channels, rows, key, pitch, pattern);
    }
  }
  if constexpr (Taps > 1) {
    if (taps_left < Taps) {
      return dot_some<T, reading, Rows, Taps - 1>(rows_left, taps_left, channels, rows, key, pitch, pattern);
    }
  }
  dot<T, reading, Rows, Taps>(channels, rows, key, pitch, pattern);
}

// One row of the window, against the `count` rows of outputs that look at it.
template <typename T, Reading reading>
__attribute__((noinline)) void dot_row(int64_t channels, const DotRow<T>* rows, int64_t count, int64_t taps,
                                       const T* key, int64_t pitch, const typename Simd<T>::Lanes& pattern) {
  // In shares that differ by one at most: the last of them would else leave registers idle.
  const int64_t row_shares = divide_up(count, int64_t(dot_rows_at_once));
  const int64_t tap_shares = divide_up(taps, int64_t(dot_taps_at_once));
  for (int64_t t = 0; t < tap_shares; ++t) {
    const int64_t tap = t * taps / tap_shares, taps_now = (t + 1) * taps / tap_shares - tap;
    for (int64_t r = 0; r < row_shares; ++r) {
      const int64_t row = r * count / row_shares, rows_now = (r + 1) * count / row_shares - row;
      DotRow<T> some[dot_rows_at_once];
      for (int64_t k = 0; k < rows_now; ++k) some[k] = {rows[row + k].query, rows[row + k].to + tap * lanes<T>};
      dot_some<T, reading, dot_rows_at_once, dot_taps_at_once>(rows_now, taps_now, channels, some, key + tap, pitch,
                                                               pattern);
    }
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
template <typename T>
void dots(const LocalTile& tile, const Strip& strip, const LaneVectors<T>& vectors, const Neighbourhood& y,
          const Neighbourhood& x, int64_t channels, const T* query, const T* key, int64_t pitch, T* to) {
  constexpr int64_t L = lanes<T>;
  const int64_t taps = y.kernel_size * x.kernel_size;
  Scratch<DotRow<T>> rows(strip.count);
  const int64_t last_row = tile.y.taps(strip.first + strip.count - 1).first + y.kernel_size;
  for (int64_t row = tile.y.taps(strip.first).first; row < last_row; ++row) {
    for (int64_t v = 0; v < vectors.count; ++v) {
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
          dot_row<T, Reading::straight>(channels, rows, count, x.kernel_size, from, pitch, lane.pattern);
          break;
        case Reading::shuffled:
          dot_row<T, Reading::shuffled>(channels, rows, count, x.kernel_size, from, pitch, lane.pattern);
          break;
        case Reading::apart:
          dot_row<T, Reading::apart>(channels, rows, count, x.kernel_size, from, pitch, lane.pattern);
          break;
      }
    }
  }
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
