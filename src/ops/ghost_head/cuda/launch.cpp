// The passes of ghost_head on the current CUDA stream.
#include <platform.h>

#include "../kernels.h"
#include "passes.h"

namespace elsa::ghost_head {

const Kernels kernels{[](const Gather& pass) { gather(pass, current_stream()); },
                      [](const Reduce& pass) { reduce(pass, current_stream()); }, chunks};

}  // namespace elsa::ghost_head
