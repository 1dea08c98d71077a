// Matrices of 16 pixels × 32 channels in shared memory, panels, and their products, for kernels whose warps work apart
// from each other: on the tensor cores in 16-bit types, on the float32 units in float32.
//
// Sums of both kinds are spread over the lanes as those of an mma are: with g = lane / 4 and t = lane % 4, a lane has
// of the 8 columns of block b
//
// clang-format off
//               row    column                       row    column
//   sum[b][0]   g      8b + 2t         sum[b][2]    g + 8  8b + 2t
//   sum[b][1]   g      8b + 2t + 1     sum[b][3]    g + 8  8b + 2t + 1
// clang-format on
#pragma once

#include "strips.cuh"

namespace elsa::cuda {

constexpr unsigned all_lanes = 0xffffffff;
constexpr int panel_pixels = 16;

// The numbers from pixel to pixel. They are an odd number of 16 bytes: eight pixels lie in different banks.
template <typename T>
constexpr int panel_pitch = slice_channels + 16 / int(sizeof(T));
template <typename T>
constexpr int panel_numbers = panel_pixels * panel_pitch<T>;

// Two numbers that are loaded and stored at once.
template <typename T>
struct alignas(2 * sizeof(T)) Pair {
  T data[2];
};

// The blocks of 8 columns of a product of two panels, and of a panel under weights.
constexpr int pair_blocks = panel_pixels / 8, channel_blocks = slice_channels / 8;
using PairSums = float[pair_blocks][4];
using ChannelSums = float[channel_blocks][4];

__device__ inline int lane_index() { return threadIdx.x % warp_lanes; }

// A lane copies four quads of channels of a panel. Where channels lie side by side so do the lanes of a pixel;
// elsewhere neighbouring lanes take neighbouring pixels.
constexpr int lane_quads = panel_pixels * strip_lanes / warp_lanes;

template <bool Vector>
__device__ int copied_pixel(int k) {
  return Vector ? lane_index() / strip_lanes + warp_strips * k : lane_index() % panel_pixels;
}

template <bool Vector>
__device__ int copied_channel(int k) {
  return lane_channels * (Vector ? lane_index() % strip_lanes : lane_index() / panel_pixels + 2 * k);
}

// The channels of a head in one sample of a map.
template <typename T>
struct HeadMap {
  T* data;
  int64_t channel_stride, row_stride;
  int column_bytes, channels;

  __device__ HeadMap(const Map<T>& map, int64_t sample, int64_t head, int head_channels)
      : data(map.at(sample, head * head_channels, 0, 0)),
        channel_stride(map.channel_stride),
        row_stride(map.row_stride),
        column_bytes(int(map.column_stride * int(sizeof(T)))),
        channels(head_channels) {}

  // SideBySide says that channels are.
  template <bool SideBySide>
  __device__ T* at(int channel, int row, int column) const {
    T* first = data + row * row_stride + (SideBySide ? channel : channel * channel_stride);
    using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
    return reinterpret_cast<T*>(reinterpret_cast<Byte*>(first) + int64_t(column) * column_bytes);
  }
};

// Copy a slice of 16 pixels to a panel: the k-th that a lane copies is at row `row(k)` and column `column(k)`, and zero
// where `inside(k)` is false. Vector says that channels lie side by side, and are multiples of 4.
template <typename T, bool Vector, typename Row, typename Column, typename Inside>
__device__ void copy_pixels(const HeadMap<const T>& map, int slice, const Row& row, const Column& column,
                            const Inside& inside, T* panel) {
  Words<T> words[lane_quads];
#pragma unroll
  for (int k = 0; k < lane_quads; ++k) {
    const int channel = slice * slice_channels + copied_channel<Vector>(k), count = map.channels - channel;
    words[k] = Words<T>{};
    if (!inside(k) || count <= 0) continue;
    const T* from = map.template at<Vector>(channel, row(k), column(k));
    if constexpr (Vector) {
      words[k] = *reinterpret_cast<const Words<T>*>(from);
    } else {
      Channels<T> channels;
#pragma unroll
      for (int c = 0; c < lane_channels; ++c) channels.data[c] = c < count ? from[c * map.channel_stride] : T();
      words[k] = __builtin_bit_cast(Words<T>, channels);
    }
  }
#pragma unroll
  for (int k = 0; k < lane_quads; ++k) {
    T* to = panel + copied_pixel<Vector>(k) * panel_pitch<T> + copied_channel<Vector>(k);
    *reinterpret_cast<Words<T>*>(to) = words[k];
  }
}

// sum[i][j] += Σ_c left[i][c] · right[j][c]. All lanes must call.
template <typename T>
__device__ void add_pairs(const T* left, const T* right, PairSums& sum) {
  constexpr int pitch = panel_pitch<T>;
  if constexpr (tensor_cores_take<T>) {
    const int place = lane_index() % panel_pixels * pitch + lane_index() / panel_pixels * 8;
#pragma unroll
    for (int c = 0; c < slice_channels; c += 16) {
      uint32_t rows[4], columns[4];
      load_left(left + place + c, rows);
      load_left(right + place + c, columns);
      add_product<T>(rows, {columns[0], columns[2]}, sum[0]);
      add_product<T>(rows, {columns[1], columns[3]}, sum[1]);
    }
  } else {
    // Apart from the sums of other slices, so that these lose less of it.
    PairSums of_slice = {};
    const float* row = left + lane_index() / 4 * pitch;
    const float* column = right + lane_index() % 4 * 2 * pitch;
#pragma unroll 2
    for (int c = 0; c < slice_channels; c += lane_channels) {
      float rows[2][lane_channels], columns[2 * pair_blocks][lane_channels];
#pragma unroll
      for (int i = 0; i < 2; ++i) load_shared(row + 8 * i * pitch + c, rows[i]);
#pragma unroll
      for (int j = 0; j < 2 * pair_blocks; ++j) load_shared(column + (j / 2 * 8 + j % 2) * pitch + c, columns[j]);
#pragma unroll
      for (int k = 0; k < 4 * pair_blocks; ++k) {
#pragma unroll
        for (int e = 0; e < lane_channels; ++e) {
          of_slice[k / 4][k % 4] += rows[k % 4 / 2][e] * columns[k / 4 * 2 + k % 2][e];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < 4 * pair_blocks; ++k) sum[k / 4][k % 4] += of_slice[k / 4][k % 4];
  }
}

// Two numbers as a word of T. They become what that leaves of them.
template <typename T>
__device__ uint32_t take_halves(float& lower, float& upper) {
  const Pair<T> halves{{rounded<T>(lower), rounded<T>(upper)}};
  // Not const: nvcc 13.0 would try to know the bits at compile time, and stop with an internal error.
  uint32_t word = __builtin_bit_cast(uint32_t, halves);
  float taken[2];
  unpack<T>(word, taken[0], taken[1]);
  lower -= taken[0], upper -= taken[1];
  return word;
}

// sum[i][c] += Σ_j weights[i][j] · panel[j][c]. All lanes must call. On the tensor cores a weight is the sum of two
// numbers of T, which is as good as float32 beside numbers of T.
template <typename T>
__device__ void add_weighted(const PairSums& weights, const T* panel, ChannelSums& sum) {
  constexpr int pitch = panel_pitch<T>;
  const int lane = lane_index();
  if constexpr (tensor_cores_take<T>) {
    uint32_t upper[4], lower[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float first = weights[k / 2][k % 2 * 2], second = weights[k / 2][k % 2 * 2 + 1];
      upper[k] = take_halves<T>(first, second);
      lower[k] = take_halves<T>(first, second);
    }
    const T* row = panel + lane % panel_pixels * pitch + lane / panel_pixels * 8;
#pragma unroll
    for (int b = 0; b < channel_blocks; b += 2) {
      uint32_t right[4];
      load_transposed(row + 8 * b, right);
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        add_product<T>(lower, {right[2 * k], right[2 * k + 1]}, sum[b + k]);
        add_product<T>(upper, {right[2 * k], right[2 * k + 1]}, sum[b + k]);
      }
    }
  } else {
    const float* column = panel + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < panel_pixels; ++j) {
      const int holder = (lane & ~3) | j % 8 / 2;
      float row[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) row[i] = __shfl_sync(all_lanes, weights[j / 8][2 * i + j % 2], holder);
#pragma unroll
      for (int b = 0; b < channel_blocks; ++b) {
        const auto pair = *reinterpret_cast<const Pair<float>*>(column + j * pitch + 8 * b);
#pragma unroll
        for (int e = 0; e < 4; ++e) sum[b][e] += row[e / 2] * pair.data[e % 2];
      }
    }
  }
}

// The slices of 32 channels of a head.
inline int slices_of(int64_t channels) { return int(divide_up(channels, slice_channels)); }

}  // namespace elsa::cuda
