// The instruction set that the CPU kernels use: the best that the machine has, or what ELSA_CPU_CAPABILITY names.
#pragma once

#include "../core/export.h"

// each(capability, argument) for every instruction set that kernels are compiled for, from the worst to the best.
// cmake/ops.cmake has the same list with the compiler's options.
#if defined(__x86_64__)
#define ELSA_CAPABILITIES(each, argument) each(baseline, argument) each(avx2, argument) each(avx512, argument)
#elif defined(__aarch64__)
#define ELSA_CAPABILITIES(each, argument) each(neon, argument)
#else
#define ELSA_CAPABILITIES(each, argument) each(baseline, argument)
#endif

namespace elsa::cpu {

#define ELSA_ENUMERATOR(capability, argument) capability,
enum class Capability { ELSA_CAPABILITIES(ELSA_ENUMERATOR, ) };

ELSA_EXPORT const char* name(Capability capability);

// The best instruction set of this machine.
ELSA_EXPORT Capability best_capability();

// The instruction set in use, settled at the first call. Throws if ELSA_CPU_CAPABILITY names one that is unknown or
// that this machine lacks.
ELSA_EXPORT Capability capability();

}  // namespace elsa::cpu
