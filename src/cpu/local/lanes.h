// The outputs of a tile's row as vectors, and what their lanes read.
//
// A row is cut into vectors as even as it allows. What belongs to a tap lies as [vector][tap][lane], for every row of
// outputs.
#pragma once

#include "axis.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// How the lanes of a vector find their sources: a tap later, all of them lie one further.
enum class Reading { straight, shuffled, anywhere };

template <typename T>
struct LaneVector {
  int64_t first, count;  // outputs of the tile
  int64_t base;          // the first of the sources of their first taps
  Reading reading;
  typename Simd<T>::Lanes pattern;  // those sources, from the base on; lanes without an output repeat the last one

  LaneVector(const LocalAxis& axis, int64_t first_output, int64_t outputs) : first(first_output), count(outputs) {
    base = axis.taps(first).first;
    int64_t highest = base;
    for (int64_t l = 1; l < count; ++l) {
      const int64_t source = axis.taps(first + l).first;
      base = smaller(base, source), highest = larger(highest, source);
    }
    bool in_order = true;
    for (int64_t l = 0; l < lanes<T>; ++l) {
      const int64_t source = axis.taps(first + smaller(l, count - 1)).first - base;
      pattern[l] = source;
      in_order = in_order && (l >= count || source == l);
    }
    reading = in_order ? Reading::straight : highest - base < lanes<T> ? Reading::shuffled : Reading::anywhere;
  }
};

template <typename T>
int64_t vectors_of(int64_t outputs) {
  return divide_up(outputs, int64_t(lanes<T>));
}

// The vectors of a tile's row.
template <typename T>
class LaneVectors {
 public:
  int64_t count;

  explicit LaneVectors(const LocalAxis& axis) : count(vectors_of<T>(axis.count)), vectors_(count) {
    for (int64_t k = 0; k < count; ++k) {
      const int64_t first = k * axis.count / count;
      vectors_[k] = LaneVector<T>(axis, first, (k + 1) * axis.count / count - first);
    }
  }
  const LaneVector<T>& operator[](int64_t k) const { return vectors_[k]; }

 private:
  mutable Scratch<LaneVector<T>> vectors_;
};

// What loops do between two pieces of their work, if nobody asks for more.
struct Nothing {
  void operator()() const {}
};

// Copy as many pixels as a vector has lanes, or fewer, into planes, [channel][lane].
template <typename T, typename From>
void pack_vector(const Row<const From*>& row, T* to) {
  constexpr int64_t L = lanes<T>;
  if (row.channel != 1) {
    for (int64_t c = 0; c < row.count; ++c) {
      copy_channels(row.data + c * row.channel, row.column, row.pixels, L, to + c * L);
    }
    return;
  }
  for_each_vector<T>(row.count, [&](int64_t first, int64_t channels) {
    Vector<T> v[L];
    const auto pixel = [&](int64_t p) { return row.data + smaller(p, row.pixels - 1) * row.column + first; };
    load_transposed<T>(pixel, channels, v);
    if (channels == L) {
#pragma GCC unroll 16
      for (int c = 0; c < L; ++c) store(to + (first + c) * L, v[c]);
    } else {
      for (int64_t c = 0; c < channels; ++c) store(to + (first + c) * L, v[c]);
    }
  });
}

// The reverse of it.
template <typename T, typename To>
void unpack_vector(const T* from, const Row<To*>& row) {
  constexpr int L = lanes<T>;
  if (row.channel == 1) {
    for_each_vector<T>(row.count, [&](int64_t first, int64_t channels) {
      Vector<T> v[L];
#pragma GCC unroll 16
      for (int c = 0; c < L; ++c) v[c] = load(from + (first + smaller(c, channels - 1)) * L);
      transpose<T>(v);
#pragma GCC unroll 16
      for (int p = 0; p < L; ++p) {
        if (p < row.pixels) store_some<T>(row.data + p * row.column + first, v[p], channels);
      }
    });
  } else if (row.column == 1) {
    for (int64_t c = 0; c < row.count; ++c) {
      store_some<T>(row.data + c * row.channel, load(from + c * L), row.pixels);
    }
  } else {
    for (int64_t c = 0; c < row.count; ++c) {
      for (int64_t p = 0; p < row.pixels; ++p) {
        row.data[c * row.channel + p * row.column] = convert<To>(from[c * L + p]);
      }
    }
  }
}

// Copy `count` channels of a strip of a map into planes, [row][vector][channel][lane].
template <typename T>
void pack_lanes(const MapView& map, int64_t sample, int64_t channel, int64_t count, const LocalTile& tile,
                const Strip& strip, const LaneVectors<T>& vectors, T* to) {
  with_type<T>(map.dtype, [&](auto type) {
    using From = decltype(type);
    for (int64_t y = 0; y < strip.count; ++y) {
      for (int64_t k = 0; k < vectors.count; ++k, to += count * lanes<T>) {
        const From* from =
            map.at<const From>(sample, channel, tile.y.first + strip.first + y, tile.x.first + vectors[k].first);
        pack_vector<T, From>({from, map.channel_stride, map.column_stride, vectors[k].count, count}, to);
      }
    }
  });
}

// The reverse of it.
template <typename T>
void unpack_lanes(const MapView& map, int64_t sample, int64_t channel, int64_t count, const LocalTile& tile,
                  const Strip& strip, const LaneVectors<T>& vectors, const T* from) {
  constexpr int64_t L = lanes<T>;
  with_type<T>(map.dtype, [&](auto type) {
    using To = decltype(type);
    for (int64_t y = 0; y < strip.count; ++y) {
      for (int64_t k = 0; k < vectors.count; ++k, from += count * L) {
        To* to = map.at<To>(sample, channel, tile.y.first + strip.first + y, tile.x.first + vectors[k].first);
        unpack_vector<T, To>(from, {to, map.channel_stride, map.column_stride, vectors[k].count, count});
      }
    }
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
