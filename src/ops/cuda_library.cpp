// Registers the ops for CUDA.
#include "cuda_ops.h"

namespace elsa {

STABLE_TORCH_LIBRARY_IMPL(elsa, CUDA, library) {
  library.impl("ghost_head", TORCH_BOX(&cuda_ops::ghost_head));
  library.impl("ghost_head_backward", TORCH_BOX(&cuda_ops::ghost_head_backward));
  library.impl("hadamard_attention", TORCH_BOX(&cuda_ops::hadamard_attention));
  library.impl("hadamard_attention_backward", TORCH_BOX(&cuda_ops::hadamard_attention_backward));
}

}  // namespace elsa
