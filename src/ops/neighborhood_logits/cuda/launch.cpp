// The passes of neighborhood_logits on the current CUDA stream.
#include <platform.h>

#include "../kernels.h"
#include "passes.h"

namespace elsa::neighborhood_logits {

const Kernels kernels{[](const Forward& pass) { forward(pass, current_stream()); },
                      [](const Backward& pass) { backward(pass, current_stream()); }, chunks};

}  // namespace elsa::neighborhood_logits
