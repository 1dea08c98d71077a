// What a lane loads at once: four numbers, as the words that registers hold.
#pragma once

#include <cstdint>

namespace elsa::cuda {

// The channels of a lane: as bfloat16 and float16 they are one load of 8 bytes, as float32 one of 16, the longest that
// there is.
constexpr int lane_channels = 4;

template <typename T>
struct alignas(lane_channels * sizeof(T)) Words {
  uint32_t data[lane_channels * sizeof(T) / sizeof(uint32_t)];
};

// Whether the tensor cores multiply numbers of T exactly and sum in float32.
template <typename T>
constexpr bool tensor_cores_take = sizeof(T) == 2;

}  // namespace elsa::cuda
