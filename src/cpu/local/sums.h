// Sums over the taps, with a weight for each: of the neighbours of every output, and their transpose, which adds every
// output to its neighbours. Lanes are channels.
//
//   gather   out[x][c] = scale · Σ_ij weight[i][j][x] · window[first_y + i][first_x(x) + j][c]
//   scatter  window[first_y + i][first_x(x) + j][c] += weight[i][j][x] · scale · out[x][c]
#pragma once

#include "lanes.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// Pixels whose sums stay in registers; no more than a vector has lanes. 7 divides the maps of Swin, 8 those whose sides
// are powers of two.
#if ELSA_VECTOR_BYTES == 64
constexpr int sum_pixels[] = {7, 8};
#else
constexpr int sum_pixels[] = {4, 4};
#endif

// How the reaches of neighbouring pixels follow one another where they overlap: a pixel further each; or at rest for
// the first pixels, at the left edge of a map in which they shift; or for the last ones, at its right edge; or all in
// the same place. For K = 7, the first tap of each pixel:
//
//   further 0123456   left_edge 0000123   right_edge 0123333   same 0000000
enum class Reaches { further, left_edge, right_edge, same };

template <Reaches reaches, int K, int Pixels>
constexpr int first_tap(int pixel) {
  switch (reaches) {
    case Reaches::further:
      return pixel;
    case Reaches::left_edge:
      return pixel > K / 2 ? pixel - K / 2 : 0;
    case Reaches::right_edge:
      return pixel < Pixels - 1 - K / 2 ? pixel : Pixels - 1 - K / 2;
    case Reaches::same:
      return 0;
  }
}

// Call f(std::integral_constant<Reaches, …>()) for the way in which the reaches of pixels follow one another that begin
// at `starts`, in numbers of `width` a pixel; if it is another way, return false.
template <int K, int Pixels, typename Function>
ELSA_INLINE bool choose_reaches(const int64_t* starts, int64_t width, const Function& f) {
  const auto choose = [&](auto reaches) {
    for (int p = 1; p < Pixels; ++p) {
      if (starts[p] - starts[0] != first_tap<reaches.value, K, Pixels>(p) * width) return false;
    }
    f(reaches);
    return true;
  };
  if (choose(std::integral_constant<Reaches, Reaches::further>())) return true;
  if constexpr (K > 0) {
    return choose(std::integral_constant<Reaches, Reaches::left_edge>()) ||
           choose(std::integral_constant<Reaches, Reaches::right_edge>()) ||
           choose(std::integral_constant<Reaches, Reaches::same>());
  }
  return false;
}

// The rows of taps of one row of outputs, and the steps between them.
template <typename T>
struct TapRows {
  const T* weights;  // [row][tap][lane]
  int64_t rows, columns;
  T* window;
  int64_t pitch;
};

// A source is loaded once for all pixels that look at it. K is the number of columns, or 0 for what `taps` says.
template <typename T, int Vectors, int K, int Pixels, Reaches reaches>
ELSA_INLINE void gather_overlapping(TapRows<T> taps, T scale, T* out, int64_t step) {
  constexpr int L = lanes<T>, width = Vectors * L;
  Vector<T> sum[Pixels][Vectors] = {};
  const int64_t columns = K == 0 ? taps.columns : K;
  constexpr auto first = first_tap<reaches, K, Pixels>;
  constexpr int sources = first(Pixels - 1) + K;
  for (int64_t i = 0; i < taps.rows; ++i, taps.weights += columns * L, taps.window += taps.pitch) {
    if constexpr (K == 0) {
      for (int64_t j = 0; j < columns; ++j) {
#pragma GCC unroll 8
        for (int p = 0; p < Pixels; ++p) {
          const T weight = taps.weights[j * L + p];
          for (int v = 0; v < Vectors; ++v) sum[p][v] += load(taps.window + (j + p) * width + v * L) * weight;
        }
      }
    } else {
#pragma GCC unroll 16
      for (int s = 0; s < sources; ++s) {
        Vector<T> source[Vectors];
        for (int v = 0; v < Vectors; ++v) source[v] = load(taps.window + s * width + v * L);
#pragma GCC unroll 8
        for (int p = 0; p < Pixels; ++p) {
          if (s < first(p) || s >= first(p) + K) continue;
          const T weight = taps.weights[(s - first(p)) * L + p];
          for (int v = 0; v < Vectors; ++v) sum[p][v] += source[v] * weight;
        }
      }
    }
  }
  for (int p = 0; p < Pixels; ++p) {
    for (int v = 0; v < Vectors; ++v) store_unaligned(out + p * step + v * L, sum[p][v] * scale);
  }
}

// Taps of any pixels: those of pixel p start at `window + starts[p]`.
template <typename T, int Vectors, int Pixels>
ELSA_INLINE void gather_anywhere(TapRows<T> taps, const int64_t* starts, T scale, T* out, int64_t step) {
  constexpr int L = lanes<T>, width = Vectors * L;
  Vector<T> sum[Pixels][Vectors] = {};
  for (int64_t i = 0; i < taps.rows; ++i, taps.weights += taps.columns * L, taps.window += taps.pitch) {
    const T* window[Pixels];
    for (int p = 0; p < Pixels; ++p) window[p] = taps.window + starts[p];
    for (int64_t j = 0; j < taps.columns; ++j) {
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) {
        const T weight = taps.weights[j * L + p];
        for (int v = 0; v < Vectors; ++v) sum[p][v] += load(window[p] + j * width + v * L) * weight;
      }
    }
  }
  for (int p = 0; p < Pixels; ++p) {
    for (int v = 0; v < Vectors; ++v) store_unaligned(out + p * step + v * L, sum[p][v] * scale);
  }
}

template <typename T, int Vectors, int K, int Pixels, Reaches reaches>
ELSA_INLINE void scatter_overlapping(TapRows<T> taps, T scale, const T* out, int64_t step) {
  constexpr int L = lanes<T>, width = Vectors * L;
  constexpr auto first = first_tap<reaches, K, Pixels>;
  constexpr int sources = first(Pixels - 1) + K;
  Vector<T> pixel[Pixels][Vectors];
  for (int p = 0; p < Pixels; ++p) {
    for (int v = 0; v < Vectors; ++v) pixel[p][v] = load_unaligned(out + p * step + v * L) * scale;
  }
  for (int64_t i = 0; i < taps.rows; ++i, taps.weights += K * L, taps.window += taps.pitch) {
#pragma GCC unroll 16
    for (int s = 0; s < sources; ++s) {
      Vector<T> source[Vectors];
      for (int v = 0; v < Vectors; ++v) source[v] = load(taps.window + s * width + v * L);
#pragma GCC unroll 8
      for (int p = 0; p < Pixels; ++p) {
        if (s < first(p) || s >= first(p) + K) continue;
        const T weight = taps.weights[(s - first(p)) * L + p];
        for (int v = 0; v < Vectors; ++v) source[v] += pixel[p][v] * weight;
      }
      for (int v = 0; v < Vectors; ++v) store(taps.window + s * width + v * L, source[v]);
    }
  }
}

template <typename T, int Vectors>
ELSA_INLINE void scatter_one(TapRows<T> taps, T scale, const T* out) {
  constexpr int L = lanes<T>, width = Vectors * L;
  Vector<T> pixel[Vectors];
  for (int v = 0; v < Vectors; ++v) pixel[v] = load_unaligned(out + v * L) * scale;
  for (int64_t i = 0; i < taps.rows; ++i, taps.weights += taps.columns * L, taps.window += taps.pitch) {
    for (int64_t j = 0; j < taps.columns; ++j) {
      for (int v = 0; v < Vectors; ++v) {
        T* to = taps.window + j * width + v * L;
        store(to, load(to) + pixel[v] * taps.weights[j * L]);
      }
    }
  }
}

// A strip's outputs in `width` channels a pixel, and the window of the tile's sources.
template <typename T>
struct SumTile {
  const T* weights;  // [y][vector][tap][lane]
  T* window;         // [row][column][width]
  T* out;
  int64_t out_row, out_column;
  T scale;
};

template <typename T, int Vectors, int K, int Pixels, typename Between>
void gather_vector(const TapRows<T>& taps, const LaneVector<T>& lane, const SumTile<T>& sums, T* out,
                   Between& between) {
  constexpr int width = Vectors * lanes<T>;
  for (int64_t done = 0; done < lane.count; done += Pixels) {
    // The last pixels overlap those before: they get the same numbers again.
    const int64_t p = lane.count < Pixels ? done : smaller(done, lane.count - Pixels);
    int64_t starts[Pixels];
    const int64_t now = smaller(Pixels, lane.count - p);
    for (int64_t k = 0; k < now; ++k) starts[k] = (lane.base + lane.pattern[p + k]) * width;
    TapRows<T> here = taps;
    here.weights += p;
    T* to = out + p * sums.out_column;
    if (now < Pixels) {
      for (int64_t k = 0; k < now; ++k, ++here.weights, to += sums.out_column) {
        gather_anywhere<T, Vectors, 1>(here, starts + k, sums.scale, to, sums.out_column);
      }
    } else if (!choose_reaches<K, Pixels>(starts, width, [&](auto reaches) {
                 TapRows<T> from = here;
                 from.window += starts[0];
                 gather_overlapping<T, Vectors, K, Pixels, reaches.value>(from, sums.scale, to, sums.out_column);
               })) {
      gather_anywhere<T, Vectors, Pixels>(here, starts, sums.scale, to, sums.out_column);
    }
    between();
  }
}

template <typename T, int Vectors, int K, int Pixels>
void scatter_vector(const TapRows<T>& taps, const LaneVector<T>& lane, const SumTile<T>& sums, const T* out) {
  constexpr int width = Vectors * lanes<T>;
  for (int64_t p = 0; p < lane.count;) {
    TapRows<T> here = taps;
    here.weights += p;
    const T* from = out + p * sums.out_column;
    int64_t starts[Pixels];
    const int64_t now = smaller(Pixels, lane.count - p);
    for (int64_t k = 0; k < now; ++k) starts[k] = (lane.base + lane.pattern[p + k]) * width;
    here.window += starts[0];
    if constexpr (K > 0) {
      if (now == Pixels && choose_reaches<K, Pixels>(starts, width, [&](auto reaches) {
            scatter_overlapping<T, Vectors, K, Pixels, reaches.value>(here, sums.scale, from, sums.out_column);
          })) {
        p += Pixels;
        continue;
      }
    }
    scatter_one<T, Vectors>(here, sums.scale, from);
    ++p;
  }
}

// Call f(taps, lane, out) for every row of outputs and vector of it.
template <typename T, typename Function>
ELSA_INLINE void for_each_lane_vector(const SumTile<T>& sums, const LocalTile& tile, const Strip& strip,
                                      const LaneVectors<T>& vectors, const Neighbourhood& y, const Neighbourhood& x,
                                      int64_t width, const Function& f) {
  constexpr int64_t L = lanes<T>;
  const int64_t taps = y.kernel_size * x.kernel_size, pitch = tile.x.length * width;
  for (int64_t v = 0; v < vectors.count; ++v) {
    for (int64_t k = 0; k < strip.count; ++k) {
      const Taps& in = tile.y.taps(strip.first + k);
      const T* weights = sums.weights + ((k * vectors.count + v) * taps + in.begin * x.kernel_size) * L;
      f(TapRows<T>{weights, in.end - in.begin, x.kernel_size, sums.window + (in.first + in.begin) * pitch, pitch},
        vectors[v], sums.out + k * sums.out_row + vectors[v].first * sums.out_column);
    }
  }
}

// Call f(std::integral_constant<int, K>()) for the K of the loops that are compiled for it, else for 0; and f's second
// argument likewise for the pixels at once that leave least to do twice.
template <typename T, typename Function>
ELSA_INLINE void choose_sums(const LaneVectors<T>& vectors, int64_t K, const Function& f) {
  int64_t cost[2] = {};
  for (int64_t v = 0; v < vectors.count; ++v) {
    for (int k = 0; k < 2; ++k) cost[k] += divide_up(vectors[v].count, int64_t(sum_pixels[k])) * sum_pixels[k];
  }
  const auto with_pixels = [&](auto pixels) {
    switch (K) {
      case 3:
        return f(std::integral_constant<int, 3>(), pixels);
      case 5:
        return f(std::integral_constant<int, 5>(), pixels);
      case 7:
        return f(std::integral_constant<int, 7>(), pixels);
      default:
        return f(std::integral_constant<int, 0>(), pixels);
    }
  };
  if constexpr (sum_pixels[0] != sum_pixels[1]) {
    if (cost[1] < cost[0]) return with_pixels(std::integral_constant<int, sum_pixels[1]>());
  }
  with_pixels(std::integral_constant<int, sum_pixels[0]>());
}

template <typename T, int Vectors, typename Between>
void gather_strip(const SumTile<T>& sums, const LocalTile& tile, const Strip& strip, const LaneVectors<T>& vectors,
                  const Neighbourhood& y, const Neighbourhood& x, Between& between) {
  choose_sums<T>(vectors, x.kernel_size, [&](auto K, auto pixels) {
    for_each_lane_vector<T>(sums, tile, strip, vectors, y, x, Vectors * lanes<T>,
                            [&](const TapRows<T>& taps, const LaneVector<T>& lane, T* out) {
                              gather_vector<T, Vectors, K.value, pixels.value>(taps, lane, sums, out, between);
                            });
  });
}

template <typename T, int Vectors>
void scatter_strip(const SumTile<T>& sums, const LocalTile& tile, const Strip& strip, const LaneVectors<T>& vectors,
                   const Neighbourhood& y, const Neighbourhood& x) {
  choose_sums<T>(vectors, x.kernel_size, [&](auto K, auto pixels) {
    for_each_lane_vector<T>(sums, tile, strip, vectors, y, x, Vectors * lanes<T>,
                            [&](const TapRows<T>& taps, const LaneVector<T>& lane, T* out) {
                              scatter_vector<T, Vectors, K.value, pixels.value>(taps, lane, sums, out);
                            });
  });
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
