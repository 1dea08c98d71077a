// Which instruction set's kernels an op takes. Knows no op.
#pragma once

#include "capability.h"

// Beside an op's table of kernels, in its namespace: declares the table of every instruction set, each of which is
// defined by the op's cpu/kernels.cpp, and defines vector_kernels(), the table in use.
#if defined(__x86_64__)
#define ELSA_VECTOR_KERNELS(Table)                                                        \
  namespace baseline {                                                                    \
  extern const Table kernels;                                                             \
  }                                                                                       \
  namespace avx2 {                                                                        \
  extern const Table kernels;                                                             \
  }                                                                                       \
  namespace avx512 {                                                                      \
  extern const Table kernels;                                                             \
  }                                                                                       \
  inline const Table& vector_kernels() {                                                  \
    const Table* const tables[] = {&baseline::kernels, &avx2::kernels, &avx512::kernels}; \
    return *tables[int(cpu::capability())];                                               \
  }
#else
// An unusable ELSA_CPU_CAPABILITY is an error on every machine.
#define ELSA_VECTOR_KERNELS(Table) \
  namespace baseline {             \
  extern const Table kernels;      \
  }                                \
  inline const Table& vector_kernels() { return cpu::capability(), baseline::kernels; }
#endif
