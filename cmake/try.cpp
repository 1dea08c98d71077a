// Compiles where the compiler and its library know the C++20 that is needed, and the compiler vectors.
#include <bit>

static_assert(std::bit_cast<unsigned>(0.f) == 0);
typedef float Vector __attribute__((vector_size(16)));
