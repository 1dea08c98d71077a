// What a device brings to elsa::neighborhood_attention.
#pragma once

#include "contract.h"

namespace elsa::neighborhood_attention {

struct Kernels {
  void (*forward)(const Forward& pass);
  void (*backward)(const Backward& pass);
  int64_t (*chunks)(const LocalShape& shape);  // partial sums of the gradient of bias for every sample and head
  // Numbers of the accumulation type that a pass keeps its attention in.
  int64_t (*workspace)(const LocalShape& shape, bool is_backward);
};

// Those of the device that this library is for.
extern const Kernels kernels;

}  // namespace elsa::neighborhood_attention
