// What a device brings to elsa::neighborhood_logits.
#pragma once

#include "contract.h"

namespace elsa::neighborhood_logits {

struct Kernels {
  void (*forward)(const Forward& pass);
  void (*backward)(const Backward& pass);
  int64_t (*chunks)(const LocalShape& shape);  // partial sums of the gradient of bias for every sample and head
};

// Those of the device that this library is for.
extern const Kernels kernels;

}  // namespace elsa::neighborhood_logits
