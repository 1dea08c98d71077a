// The kernels of ghost_head for one kernel size, which the build names.
#include "ghost_head.cuh"

namespace elsa::cuda {
template void ghost_head_gather_with<ELSA_KERNEL_SIZE>(const GhostHeadGather&, void*);
template void ghost_head_reduce_with<ELSA_KERNEL_SIZE>(const GhostHeadReduce&, void*);
}  // namespace elsa::cuda
