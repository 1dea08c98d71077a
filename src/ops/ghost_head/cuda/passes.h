// The passes of ghost_head on the current CUDA device, in the order of `stream`, a cudaStream_t.
#pragma once

#include "../contract.h"

namespace elsa::ghost_head {

void gather(const Gather& pass, void* stream);
void reduce(const Reduce& pass, void* stream);

// The partial results of a sum that fill the device.
int64_t chunks(const Shape& shape, int64_t sums);

}  // namespace elsa::ghost_head
