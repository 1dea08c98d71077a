// The kernels of hadamard_attention for one kernel size, which the build names.
#include "hadamard_attention.cuh"

namespace elsa::cuda {
template void hadamard_conv_with<ELSA_KERNEL_SIZE>(const HadamardConv&, ConvStep, void*);
template void hadamard_weight_gradient_with<ELSA_KERNEL_SIZE>(const HadamardWeightGradient&, void*);
}  // namespace elsa::cuda
