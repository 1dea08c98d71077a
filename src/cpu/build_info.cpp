// What libelsa_cpu says of itself. C functions: elsa_ext._library calls them by ctypes, in any version of Python.
#include <exception>
#include <string>

#include "capability.h"

// Lines of "name: value".
extern "C" ELSA_EXPORT const char* elsa_build_info() {
  return "version: " ELSA_VERSION "\ncompiler: " ELSA_COMPILER "\ntorch built against: " ELSA_TORCH_VERSION
         "\ntorch required: >= 2.10"
         "\nCUDA kernels: " ELSA_CUDA_BUILD;
}

extern "C" ELSA_EXPORT const char* elsa_best_cpu_capability() { return elsa::cpu::name(elsa::cpu::best_capability()); }

// The instruction set in use; if ELSA_CPU_CAPABILITY cannot be, null, and `error` says why until the thread's next
// call.
extern "C" ELSA_EXPORT const char* elsa_cpu_capability(const char** error) {
  thread_local std::string message;
  try {
    return elsa::cpu::name(elsa::cpu::capability());
  } catch (const std::exception& exception) {
    message = exception.what();
    *error = message.c_str();
    return nullptr;
  }
}
