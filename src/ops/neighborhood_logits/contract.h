// What elsa::neighborhood_logits computes, for kernels of every device: see core/local_attention.h.
#pragma once

#include "../../core/local_attention.h"

namespace elsa::neighborhood_logits {

struct Forward {
  LocalShape shape;
  MapView query, key, logits;
  BiasView bias;
};

// A null pointer is a gradient that nobody asked for. That of key is added to `sum_key`, which is zero before, has the
// accumulation type, and the channels of a pixel side by side; that of bias to the partial results, [batch][chunks]
// [heads][head_size], zero before and of the accumulation type.
struct Backward {
  LocalShape shape;
  MapView query, key, grad;  // grad: of the logits
  BiasView bias;
  MapView grad_query, sum_key;
  void* partial_bias;
  int64_t chunks;
};

}  // namespace elsa::neighborhood_logits
