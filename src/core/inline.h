// Functions that every caller takes in. In code that is compiled once per instruction set it has to be so: the linker
// must never pick one instruction set's copy for another's caller.
#pragma once

#define ELSA_INLINE_HERE inline __attribute__((always_inline))

// The same, on CUDA devices too.
#if defined(__CUDACC__)
#define ELSA_INLINE_ANYWHERE __host__ __device__ __forceinline__
#else
#define ELSA_INLINE_ANYWHERE ELSA_INLINE_HERE
#endif
