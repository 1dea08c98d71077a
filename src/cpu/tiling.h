// How a map is cut into tiles.
#pragma once

#include "../core/index.h"

namespace elsa::cpu {

// Tiles of rows × columns pixels, the last ones of a map smaller.
struct Tiling {
  int64_t height, width;  // of the map
  int64_t rows, columns, down, across;

  int64_t count() const { return down * across; }
  int64_t pixels() const { return rows * columns; }
};

// Tiles of at most most_rows × most_columns pixels, as even as the map allows.
inline Tiling even_tiling(int64_t height, int64_t width, int64_t most_rows, int64_t most_columns) {
  const int64_t down = divide_up(height, most_rows), across = divide_up(width, most_columns);
  return {height, width, divide_up(height, down), divide_up(width, across), down, across};
}

}  // namespace elsa::cpu
