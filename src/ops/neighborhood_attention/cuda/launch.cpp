// The passes of neighborhood_attention on the current CUDA stream.
#include <platform.h>

#include "../kernels.h"
#include "passes.h"

namespace elsa::neighborhood_attention {

const Kernels kernels{[](const Forward& pass) { forward(pass, current_stream()); },
                      [](const Backward& pass) { backward(pass, current_stream()); }, chunks, forward_workspace,
                      backward_workspace};

}  // namespace elsa::neighborhood_attention
