// The kernels of hadamard_attention for one kernel size, which the build names.
#include "sized.cuh"

namespace elsa::hadamard_attention {

template void conv_sized<ELSA_KERNEL_SIZE>(const Conv&, ConvStep, void*);
template void weight_gradient_sized<ELSA_KERNEL_SIZE>(const WeightGradient&, void*);
template void softmax_sized<ELSA_KERNEL_SIZE>(const Softmax&, void*);

}  // namespace elsa::hadamard_attention
