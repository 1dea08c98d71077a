#include "capability.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace elsa::cpu {

const char* name(Capability capability) {
  switch (capability) {
    case Capability::avx512:
      return "avx512";
    case Capability::avx2:
      return "avx2";
    default:
      return "baseline";
  }
}

Capability best_capability() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq")) {
    return Capability::avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    return Capability::avx2;
  }
#endif
  return Capability::baseline;
}

namespace {

Capability requested_capability() {
  const Capability best = best_capability();
  const char* wanted = std::getenv("ELSA_CPU_CAPABILITY");
  if (wanted == nullptr || *wanted == '\0') {
    return best;
  }
  for (Capability capability : {Capability::baseline, Capability::avx2, Capability::avx512}) {
    if (std::string(wanted) == name(capability)) {
      if (capability > best) {
        throw std::runtime_error(std::string("elsa: ELSA_CPU_CAPABILITY=") + wanted +
                                 ", but this machine has at most " + name(best));
      }
      return capability;
    }
  }
  throw std::runtime_error(std::string("elsa: ELSA_CPU_CAPABILITY must be baseline, avx2 or avx512, got ") + wanted);
}

}  // namespace

Capability capability() {
  static const Capability in_use = requested_capability();
  return in_use;
}

}  // namespace elsa::cpu
