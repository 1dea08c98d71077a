// The thread blocks of a launch.
#pragma once

#include <cstddef>
#include <cstdint>

namespace elsa::cuda {

struct Grid {
  int64_t x, y, z;  // thread blocks
  int threads;      // of a thread block
  size_t shared_bytes;
};

// What every device of compute capability 8.0 or newer can start: table "Technical Specifications per Compute
// Capability" of the CUDA C++ Programming Guide. 99 KiB of shared memory is the least of them, that of 8.6 and 8.9.
constexpr int most_threads = 1024;
constexpr int64_t most_blocks_x = INT32_MAX, most_blocks_yz = 65535;
constexpr size_t most_shared_bytes = 99 << 10;

// The grid of a kernel whose traits name its threads and its shared memory.
template <typename Traits>
Grid grid_of(int64_t x, int64_t y, int64_t z = 1) {
  return {x, y, z, Traits::threads, Traits::shared_bytes};
}

}  // namespace elsa::cuda
