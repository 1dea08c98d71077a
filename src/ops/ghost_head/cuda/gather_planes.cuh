// The gather of ghost_head on the tensor cores, for 16-bit types without ghost_mul, stride 1 and K ≤ 9. There
//
//   out = Σ attn · source + Σ add · source,
//
// and for a row of taps and a fragment of 8 pixels, which need no more than 16 sources, both sums are products with a
// band matrix: out[pixel] = Σ_s source[s] · weight[s − pixel][pixel]. For K = 3, with the tap's number for the weight
// and a dot for zero, it is
//
// clang-format off
//             pixel  0  1  2  3  4  5  6  7
//   source  0        0  .  .  .  .  .  .  .
//           1        1  0  .  .  .  .  .  .
//           2        2  1  0  .  .  .  .  .
//           3        .  2  1  0  .  .  .  .
//           …
// clang-format on
//
// The band matrix of attn serves the 32 channels of a slice, that of ghost_add 16 rows of pixels of one channel. The
// products are exact and the sums float32, as elsewhere.
//
// A thread block has the sources of a tile in shared memory, and the sums over ghost_add, to which it adds those over
// attn.
#pragma once

#include "../../../cuda/planes.cuh"
#include "matrix.cuh"
#include "passes.h"

namespace elsa::ghost_head {

using namespace cuda;

template <typename Number, int KernelSize, bool Vector, bool Add, bool Adjoint>
struct GatherPlanesTraits {
  using T = Number;
  static constexpr int K = KernelSize, taps = K * K;
  static constexpr bool vector = Vector, add = Add, adjoint = Adjoint;
  using Sources = SourcePlanes<K>;

  // A multiprocessor's 65536 registers are 168 a thread.
  static constexpr int threads = planes_threads, resident_blocks = 3;

  // A float32 ghost_add beside 16-bit maps is taken as the sum of two numbers of T. Float16 may be too small for them:
  // then those of a plane are divided by a power of two, and their sums multiplied.
  static constexpr int summands = 2;
  static constexpr bool scaled = add && std::is_same_v<T, float16>;

  // Shared memory: the sources' planes, those of the sums over ghost_add, ghost_add's summands, and their scales.
  static constexpr int sums_pitch = plane_side * plane_side + plane_padding;
  static constexpr size_t source_bytes = sizeof(T) * slice_channels * Sources::pitch;
  static constexpr size_t sums_bytes = sizeof(float) * slice_channels * sums_pitch;
  static constexpr size_t summand_bytes = sizeof(T) * slice_channels * summands * taps;
  static constexpr size_t scale_bytes = scaled ? sizeof(float) * slice_channels : 0;
  static constexpr size_t shared_bytes = source_bytes + (add ? sums_bytes + summand_bytes : 0) + scale_bytes;
};

// A fragment's pixels and K taps reach 7 + K sources, and an mma takes 16.
template <typename T, int K>
constexpr bool gather_planes_take = tensor_cores_take<T> && K <= 9;

template <typename T>
struct GatherPlanesArguments {
  Map<T> out;
  Map<const T> source, attn;
  Matrix<T> add;
  PlaneTiling tiling;
  int batch, head_channels, head_slices;
};

// The least power of two, 1 or more, that brings float32 numbers below 2¹⁵; 1 if they are not finite.
template <typename T>
__device__ float scale_of(const Matrix<T>& numbers, int64_t first, int count) {
  constexpr uint32_t most = 14, bias = 127, infinite = 255;
  uint32_t largest = 0;
  for (int k = 0; k < count; ++k) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, float(numbers.at(first + k))) & 0x7fffffff;
    largest = bits > largest ? bits : largest;
  }
  const uint32_t exponent = largest >> 23;
  return exponent <= bias + most || exponent == infinite ? 1 : __builtin_bit_cast(float, (exponent - most) << 23);
}

// Put the scale of every plane into shared memory.
template <typename Traits, typename T>
__device__ void stage_scales(const Matrix<T>& add, int sample, int64_t first_channel, int count, float* scales) {
  const int channel = channel_of_plane(threadIdx.x);
  if (int(threadIdx.x) >= slice_channels) return;
  const int64_t first = sample * add.batch_stride + (first_channel + channel) * Traits::taps;
  scales[threadIdx.x] = add.is_float32 && channel < count ? scale_of(add, first, Traits::taps) : 1;
}

// Copy ghost_add to shared memory, [summand][plane][tap].
template <typename Traits, typename T>
__device__ void stage_summands(const Matrix<T>& add, int sample, int64_t first_channel, int count, const float* scales,
                               T* to) {
  constexpr int taps = Traits::taps;
  for (int element = reread_thread_index(); element < slice_channels * taps; element += planes_threads) {
    const int channel = channel_of_plane(element / taps);
    const int tap = Traits::adjoint ? taps - 1 - element % taps : element % taps;
    float rest = channel < count ? add.at(sample * add.batch_stride + (first_channel + channel) * taps + tap) : 0;
    if constexpr (Traits::scaled) rest /= scales[element / taps];
#pragma unroll
    for (int summand = 0; summand < Traits::summands; ++summand) {
      const T part = rounded<T>(rest);
      to[summand * slice_channels * taps + element] = part;
      rest -= widened(part);
    }
  }
}

// A lane's four elements of a band matrix, the right operand of add_product: for pixel g = lane / 4 the sources 2t,
// 2t + 1, 2t + 8 and 2t + 9, with t = lane % 4. Element k belongs to the tap `first + offset(k)` of a row, if the row
// has that.
struct BandLane {
  int pixel, first;

  __device__ BandLane() : pixel(threadIdx.x % 32 / 4), first(threadIdx.x % 4 * 2 - pixel) {}

  __device__ static int offset(int k) { return k % 2 + k / 2 * 8; }

  // Where the weights of these taps are, if the row's lie `byte_stride` bytes apart from `taps` on.
  __device__ void locate(const void* taps, int64_t byte_stride, const char* (&elements)[4]) const {
#pragma unroll
    for (int k = 0; k < 4; ++k) elements[k] = static_cast<const char*>(taps) + (first + offset(k)) * byte_stride;
  }

  // Load the elements of which the bit in `inside` is set; the others are zero.
  __device__ static void load(const char* const (&elements)[4], uint32_t inside, uint32_t (&band)[2]) {
    uint32_t numbers[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      numbers[k] = inside >> k & 1 ? *reinterpret_cast<const uint16_t*>(elements[k]) : 0;
    }
    band[0] = numbers[0] | numbers[1] << 16, band[1] = numbers[2] | numbers[3] << 16;
  }

  // Bit k: whether element k belongs to a tap for which is_inside(tap) holds.
  template <int K, typename Function>
  __device__ uint32_t bits(const Function& is_inside) const {
    uint32_t inside = 0;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int tap = first + offset(k);
      inside |= uint32_t(within(tap, K) && is_inside(tap)) << k;
    }
    return inside;
  }
};

// The sums over ghost_add: each warp does 8 planes, as products of 16 rows of the tile with the band matrices.
template <typename Traits, typename T>
__device__ void sum_over_add(const T* planes, const T* summands, int used_summands, const float* scales, float* sums) {
  using Sources = typename Traits::Sources;
  constexpr int K = Traits::K;
  const BandLane band_lane;
  const uint32_t inside = band_lane.bits<K>([](int) { return true; });
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int plane = threadIdx.x / 32; plane < slice_channels; plane += planes_warps) {
    float sum[row_fragments][4] = {};
#pragma unroll
    for (int i = 0; i < K; ++i) {
      uint32_t source[row_fragments][4];
#pragma unroll
      for (int fragment = 0; fragment < row_fragments; ++fragment) {
        load_left<T>(planes + plane * Sources::pitch + (i + lane % 16) * Sources::columns +
                         (fragment + lane / 16) * fragment_pixels,
                     source[fragment]);
      }
#pragma unroll
      for (int summand = 0; summand < Traits::summands; ++summand) {
        if (summand >= used_summands) break;
        uint32_t band[2];
        const char* elements[4];
        band_lane.locate(summands + ((summand * slice_channels + plane) * K + i) * K, sizeof(T), elements);
        band_lane.load(elements, inside, band);
#pragma unroll
        for (int fragment = 0; fragment < row_fragments; ++fragment) {
          add_product<T>(source[fragment], band, sum[fragment]);
        }
      }
    }
    float* to = sums + plane * Traits::sums_pitch + band_lane.pixel * plane_side + lane % 4 * 2;
#pragma unroll
    for (int fragment = 0; fragment < row_fragments; ++fragment, to += fragment_pixels) {
      if constexpr (Traits::scaled) {
        for (float& number : sum[fragment]) number *= scales[plane];
      }
      to[0] = sum[fragment][0], to[1] = sum[fragment][1];
      to[8 * plane_side] = sum[fragment][2], to[8 * plane_side + 1] = sum[fragment][3];
    }
  }
}

// Add the sums over attn, for a fragment of row y of the tile, and write the results. `planes` and `sums` point to the
// fragment's first pixel.
template <typename Traits, typename T>
__device__ void finish_fragment(const GatherPlanesArguments<T>& a, const PlaneTile& tile, int sample, int head,
                                int64_t first_channel, int count, int y, int fragment, const T* planes,
                                const float* sums) {
  using Sources = typename Traits::Sources;
  constexpr int K = Traits::K, radius = K / 2, halves = slice_channels / 16;
  constexpr bool adjoint = Traits::adjoint;
  const BandLane band_lane;
  const int lane = threadIdx.x % 32, d = a.tiling.dilation, x = fragment * fragment_pixels + band_lane.pixel;
  const int row = tile.row + y * d, column = tile.column + fragment * fragment_pixels * d;

  // The attention of the pixel itself; in the adjoint that of the pixel at each tap, for the opposite tap.
  const int back = adjoint ? radius * d : 0, last_tap = adjoint ? K * K - 1 : 0;
  const T* attn = a.attn.at(sample, head * K * K + last_tap, row - back, column + band_lane.pixel * d - back);
  const int64_t next_tap = (adjoint ? d * a.attn.column_stride : 0) + (adjoint ? -1 : 1) * a.attn.channel_stride;
  const int64_t next_row = (adjoint ? d * a.attn.row_stride : 0) + (adjoint ? -K : K) * a.attn.channel_stride;
  const uint32_t inside = band_lane.bits<K>([&](int tap) { return tile.has_column(adjoint ? x + tap - radius : x); });
  const char* elements[4];
  band_lane.locate(attn, next_tap * int(sizeof(T)), elements);
  uint32_t band[K][2];
#pragma unroll
  for (int i = 0; i < K; ++i) {
    band_lane.load(elements, !adjoint || tile.has_row(y + i - radius) ? inside : 0, band[i]);
#pragma unroll
    for (int k = 0; k < 4; ++k) elements[k] += next_row * int(sizeof(T));
  }

  float sum[halves][4];
#pragma unroll
  for (int half = 0; half < halves; ++half) {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int plane = half * 16 + k / 2 * 8 + band_lane.pixel;
      sum[half][k] = Traits::add ? sums[plane * Traits::sums_pitch + lane % 4 * 2 + k % 2] : 0;
    }
#pragma unroll
    for (int i = 0; i < K; ++i) {
      uint32_t source[4];
      load_left<T>(
          planes + (half * 16 + lane % 16) * Sources::pitch + i * Sources::columns + lane / 16 * fragment_pixels,
          source);
      add_product<T>(source, band[i], sum[half]);
    }
  }

  const int lane_first = band_lane.pixel * lane_channels;
#pragma unroll
  for (int p = 0; p < 2; ++p) {
    const int pixel = lane % 4 * 2 + p;
    const float result[lane_channels] = {sum[0][p], sum[0][2 + p], sum[1][p], sum[1][2 + p]};
    if (tile.has_column(fragment * fragment_pixels + pixel) && lane_first < count) {
      store_channels<T, Traits::vector>(result, a.out.at(sample, first_channel + lane_first, row, column + pixel * d),
                                        a.out.channel_stride, count - lane_first);
    }
  }
}

template <typename Traits>
__global__ void __launch_bounds__(Traits::threads, Traits::resident_blocks)
    gather_planes_kernel(const GatherPlanesArguments<typename Traits::T> a) {
  using T = typename Traits::T;
  using Sources = typename Traits::Sources;
  unsigned char* shared = shared_memory<unsigned char>();
  T* planes = reinterpret_cast<T*>(shared);
  float* sums = reinterpret_cast<float*>(shared + Traits::source_bytes);
  T* summands = reinterpret_cast<T*>(shared + Traits::source_bytes + Traits::sums_bytes);
  float* scales = reinterpret_cast<float*>(shared + Traits::shared_bytes - Traits::scale_bytes);
  const int warp = threadIdx.x / 32;
  const int head = blockIdx.y / a.head_slices, first = blockIdx.y % a.head_slices * slice_channels;
  const int64_t first_channel = int64_t(head) * a.head_channels + first;
  const int count = a.head_channels - first;

  int staged_sample = -1;
  for (int unit = blockIdx.x; unit < a.batch * a.tiling.tiles; unit += gridDim.x) {
    const int sample = unit / a.tiling.tiles;
    const PlaneTile tile(a.tiling, unit % a.tiling.tiles);
    __syncthreads();
    stage_planes<Sources, Traits::vector>(a.source, a.tiling.dilation, tile, sample, first_channel, count, planes);
    if constexpr (Traits::add) {
      if (staged_sample < 0 || (sample != staged_sample && a.add.batch_stride != 0)) {
        if constexpr (Traits::scaled) {
          stage_scales<Traits>(a.add, sample, first_channel, count, scales);
          __syncthreads();
        }
        stage_summands<Traits>(a.add, sample, first_channel, count, scales, summands);
        staged_sample = sample;
      }
      __syncthreads();
      sum_over_add<Traits>(planes, summands, a.add.is_float32 ? Traits::summands : 1, scales, sums);
    }
    __syncthreads();
#pragma unroll 1
    for (int index = warp; index < plane_side * row_fragments; index += planes_warps) {
      const int y = index / row_fragments, fragment = index % row_fragments;
      if (y >= tile.rows || fragment * fragment_pixels >= tile.columns) continue;
      finish_fragment<Traits>(a, tile, sample, head, first_channel, count, y, fragment,
                              planes + y * Sources::columns + fragment * fragment_pixels,
                              sums + y * plane_side + fragment * fragment_pixels);
    }
  }
}

}  // namespace elsa::ghost_head
