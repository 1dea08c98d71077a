#include "capability.h"

#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

namespace elsa::cpu {

namespace {

#define ELSA_NAME(capability, argument) #capability,
constexpr const char* names[] = {ELSA_CAPABILITIES(ELSA_NAME, )};

Capability requested_capability() {
  const Capability best = best_capability();
  const char* wanted = std::getenv("ELSA_CPU_CAPABILITY");
  if (wanted == nullptr || *wanted == '\0') {
    return best;
  }
  std::string known;
  for (int k = 0; k < int(std::size(names)); ++k) {
    if (std::string(wanted) == names[k]) {
      if (k > int(best)) {
        throw std::runtime_error(std::string("elsa: ELSA_CPU_CAPABILITY=") + wanted +
                                 ", but this machine has at most " + name(best));
      }
      return Capability(k);
    }
    known += (k == 0 ? "" : " or ") + std::string(names[k]);
  }
  throw std::runtime_error("elsa: ELSA_CPU_CAPABILITY must be " + known + " on this kind of CPU, got " + wanted);
}

}  // namespace

const char* name(Capability capability) { return names[int(capability)]; }

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
  return Capability();  // the first one, which every machine has
}

Capability capability() {
  static const Capability in_use = requested_capability();
  return in_use;
}

}  // namespace elsa::cpu
