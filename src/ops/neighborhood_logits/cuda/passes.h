// The passes of neighborhood_logits on the current CUDA device, in the order of `stream`, a cudaStream_t.
#pragma once

#include "../contract.h"

namespace elsa::neighborhood_logits {

void forward(const Forward& pass, void* stream);
void backward(const Backward& pass, void* stream);

// The partial results of the gradient of bias that fill the device.
int64_t chunks(const LocalShape& shape);

}  // namespace elsa::neighborhood_logits
