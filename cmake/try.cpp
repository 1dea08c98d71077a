// Compiles where the compiler and its library know the C++20 that is needed.
#include <bit>

static_assert(std::bit_cast<unsigned>(0.f) == 0);
