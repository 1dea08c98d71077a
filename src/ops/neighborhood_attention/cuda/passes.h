// The passes of neighborhood_attention on the current CUDA device, in the order of `stream`, a cudaStream_t.
#pragma once

#include "../contract.h"

namespace elsa::neighborhood_attention {

void forward(const Forward& pass, void* stream);
void backward(const Backward& pass, void* stream);

// The partial results of the gradient of bias that fill the device.
int64_t chunks(const LocalShape& shape);

int64_t workspace(const LocalShape& shape, bool is_backward);

}  // namespace elsa::neighborhood_attention
