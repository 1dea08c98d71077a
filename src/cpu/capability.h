// The instruction set that the CPU kernels use: the best that the machine has, or what ELSA_CPU_CAPABILITY names.
#pragma once

#include "../core/export.h"

namespace elsa::cpu {

enum class Capability { baseline, avx2, avx512 };

ELSA_EXPORT const char* name(Capability capability);

// The best instruction set of this machine.
ELSA_EXPORT Capability best_capability();

// The instruction set in use, settled at the first call. Throws if ELSA_CPU_CAPABILITY names one that is unknown or
// that this machine lacks.
ELSA_EXPORT Capability capability();

}  // namespace elsa::cpu
