// What the stable ABI has no function for, by the dispatcher.
#pragma once

#include "tensor.h"

namespace elsa {

// The product of two stacks of matrices, into `out`. Autocast leaves this overload alone.
void multiply(const Tensor& left, const Tensor& right, Tensor& out);

}  // namespace elsa
