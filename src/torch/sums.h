// The second stage of deterministic reductions.
#pragma once

#include "tensor.h"

namespace elsa {

// Add up the partial results of a fixed partition, [sums][terms][…], in their order: into `size`, over terms.
Tensor sum_partials(const Tensor& partial, int64_t sums, const Sizes& size);

}  // namespace elsa
