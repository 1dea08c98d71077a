// What elsa::neighborhood_attention computes, for kernels of every device: the softmax of the logits of
// core/local_attention.h over the taps that count, and the values under it.
//
//   out[b,h,c,i] = Σ_t softmax_t(logit[b,h,t,i]) · value[b,h,c,j(i,t)]
#pragma once

#include "../../core/local_attention.h"

namespace elsa::neighborhood_attention {

struct Forward {
  LocalShape shape;
  int64_t value_channels;  // of a head
  MapView query, key, value, out;
  BiasView bias;
  void* workspace;  // what the device has asked for
};

// A null pointer is a gradient that nobody asked for. Those of key and value are added to `sum_key` and `sum_value`,
// which are zero before, have the accumulation type, and the channels of a pixel side by side; that of bias to the
// partial results, [batch][chunks][heads][head_size], zero before and of the accumulation type.
struct Backward {
  LocalShape shape;
  int64_t value_channels;
  MapView query, key, value, grad;
  BiasView bias;
  MapView grad_query, sum_key, sum_value;
  void* partial_bias;
  int64_t chunks;
  void* workspace;
};

}  // namespace elsa::neighborhood_attention
