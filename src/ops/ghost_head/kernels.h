// What a device brings to elsa::ghost_head.
#pragma once

#include "contract.h"

namespace elsa::ghost_head {

struct Kernels {
  void (*gather)(const Gather& pass);
  void (*reduce)(const Reduce& pass);
  int64_t (*chunks)(const Shape& shape, int64_t sums);  // how many partial results Reduce is to give for a sum
};

// Those of the device that this library is for.
extern const Kernels kernels;

}  // namespace elsa::ghost_head
