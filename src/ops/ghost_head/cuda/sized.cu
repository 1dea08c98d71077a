// The kernels of ghost_head for one kernel size, which the build names.
#include "sized.cuh"

namespace elsa::ghost_head {

template void gather_sized<ELSA_KERNEL_SIZE>(const Gather&, void*);
template void reduce_sized<ELSA_KERNEL_SIZE>(const Reduce&, void*);

}  // namespace elsa::ghost_head
