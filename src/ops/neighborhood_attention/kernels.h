// What a device brings to elsa::neighborhood_attention.
#pragma once

#include "contract.h"

namespace elsa::neighborhood_attention {

struct Kernels {
  void (*forward)(const Forward& pass);
  void (*backward)(const Backward& pass);
  int64_t (*chunks)(const LocalShape& shape);  // partial sums of the gradient of bias for every sample and head
  // Numbers of the accumulation type that a pass, whose workspace is not there yet, needs room for.
  int64_t (*forward_workspace)(const Forward& pass);
  int64_t (*backward_workspace)(const Backward& pass);
};

// Those of the device that this library is for.
extern const Kernels kernels;

}  // namespace elsa::neighborhood_attention
