// What a lane loads at once: four numbers, as the words that registers hold.
#pragma once

#include <cstdint>

namespace elsa::cuda {

constexpr int lane_channels = 4;

template <typename T>
struct alignas(lane_channels * sizeof(T)) Words {
  uint32_t data[lane_channels * sizeof(T) / sizeof(uint32_t)];
};

// Whether the matrix units take T. They multiply exactly, and sum in float32.
template <typename T>
constexpr bool matrix_units_take = sizeof(T) == 2;

}  // namespace elsa::cuda
