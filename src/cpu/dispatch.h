// Which instruction set's kernels an op takes. Knows no op.
#pragma once

#include "capability.h"

#define ELSA_DECLARE_KERNELS(capability, Table) \
  namespace capability {                        \
  extern const Table kernels;                   \
  }
#define ELSA_ADDRESS_OF_KERNELS(capability, Table) &capability::kernels,

// Beside an op's table of kernels, in its namespace: declares the table of every instruction set, each of which is
// defined by the op's cpu/kernels.cpp, and defines vector_kernels(), the table in use.
#define ELSA_VECTOR_KERNELS(Table)                                                     \
  ELSA_CAPABILITIES(ELSA_DECLARE_KERNELS, Table)                                       \
  inline const Table& vector_kernels() {                                               \
    const Table* const tables[] = {ELSA_CAPABILITIES(ELSA_ADDRESS_OF_KERNELS, Table)}; \
    return *tables[int(cpu::capability())];                                            \
  }
