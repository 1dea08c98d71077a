// The passes of neighborhood_attention on the current CUDA device, in the order of `stream`, a cudaStream_t.
#pragma once

#include "../contract.h"

namespace elsa::neighborhood_attention {

void forward(const Forward& pass, void* stream);
void backward(const Backward& pass, void* stream);

// The partial results of the gradient of bias that fill the device.
int64_t chunks(const LocalShape& shape);

// Numbers of the accumulation type that a pass needs room for.
int64_t forward_workspace(const Forward& pass);
int64_t backward_workspace(const Backward& pass);

}  // namespace elsa::neighborhood_attention
