// Vectors of the instruction set that this translation unit is compiled for, and conversions from and to 16-bit floats.
//
// Everything here has internal linkage: the linker must never pick one instruction set's copy for another's caller.
#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#include "elsa/ghost_head.h"

#if !defined(ELSA_CAPABILITY) || !defined(ELSA_VECTOR_BYTES)
#error "compile with ELSA_CAPABILITY (a namespace) and ELSA_VECTOR_BYTES"
#endif

#define ELSA_INLINE static inline __attribute__((always_inline))

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

typedef float FloatVector __attribute__((vector_size(ELSA_VECTOR_BYTES), may_alias));
typedef double DoubleVector __attribute__((vector_size(ELSA_VECTOR_BYTES), may_alias));
typedef int32_t FloatLanes __attribute__((vector_size(ELSA_VECTOR_BYTES)));
typedef int64_t DoubleLanes __attribute__((vector_size(ELSA_VECTOR_BYTES)));

template <typename T>
struct Simd;
template <>
struct Simd<float> {
  using Vector = FloatVector;
  using Lanes = FloatLanes;
};
template <>
struct Simd<double> {
  using Vector = DoubleVector;
  using Lanes = DoubleLanes;
};

template <typename T>
using Vector = typename Simd<T>::Vector;
template <typename T>
constexpr int lanes = ELSA_VECTOR_BYTES / int(sizeof(T));

// Scratch is aligned to a vector, and every row of it is a whole number of vectors.
template <typename T>
ELSA_INLINE Vector<T> load(const T* from) {
  return *reinterpret_cast<const Vector<T>*>(from);
}
template <typename T>
ELSA_INLINE void store(T* to, Vector<T> v) {
  *reinterpret_cast<Vector<T>*>(to) = v;
}

template <typename T>
ELSA_INLINE Vector<T> load_unaligned(const T* from) {
  Vector<T> v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}

template <typename T>
ELSA_INLINE void store_unaligned(T* to, Vector<T> v) {
  std::memcpy(to, &v, sizeof(v));
}

// Compute v here, neither earlier nor later: where every register is taken, the compiler must not reorder.
template <typename V>
ELSA_INLINE void settle(V& v) {
#if defined(__x86_64__)
  __asm__ volatile("" : "+v"(v));
#elif defined(__aarch64__)
  __asm__ volatile("" : "+w"(v));
#endif
}

// Read again what `pointer` points to, rather than to keep it from an earlier loop where it takes up registers.
template <typename T>
ELSA_INLINE void read_again(const T*& pointer) {
  __asm__ volatile("" : "+r"(pointer));
}

// x in every lane. Unlike 0 + x, x - 0 is x whatever its sign, and costs nothing.
template <typename T>
ELSA_INLINE Vector<T> broadcast(T x) {
  return x - Vector<T>{};
}

// Lane k of the result is lane pattern[k].
template <typename T>
ELSA_INLINE Vector<T> shuffle(Vector<T> v, typename Simd<T>::Lanes pattern) {
#if defined(__clang__)
  Vector<T> shuffled;
  for (int lane = 0; lane < lanes<T>; ++lane) shuffled[lane] = v[pattern[lane]];
  return shuffled;
#else
  return __builtin_shuffle(v, pattern);
#endif
}

// In every group of `group` lanes, its k-th one in all of them.
template <typename T>
ELSA_INLINE Vector<T> spread(Vector<T> v, int group, int k) {
  typename Simd<T>::Lanes pattern;
  for (int lane = 0; lane < lanes<T>; ++lane) pattern[lane] = lane / group * group + k;
  return shuffle<T>(v, pattern);
}

// Lane k of the result is lane k + distance, modulo the number of lanes.
template <typename T, int Distance>
ELSA_INLINE Vector<T> rotate(Vector<T> v) {
  typename Simd<T>::Lanes pattern;
  for (int lane = 0; lane < lanes<T>; ++lane) pattern[lane] = (lane + Distance) % lanes<T>;
  return shuffle<T>(v, pattern);
}

// The lanes combined by f, which takes two vectors: always in the same order.
template <typename T, int Distance = lanes<T> / 2, typename Function>
ELSA_INLINE T fold_lanes(Vector<T> v, const Function& f) {
  if constexpr (Distance > 0) {
    return fold_lanes<T, Distance / 2>(f(v, rotate<T, Distance>(v)), f);
  } else {
    return v[0];
  }
}

// Lane k of a pattern of groups of `Group` lanes, taken in turn from the first and the second operand of a shuffle.
// half = 0 takes the even groups, half = 1 the odd ones.
template <typename T, int Group>
ELSA_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b, int half) {
  typename Simd<T>::Lanes pattern;
  for (int k = 0; k < lanes<T>; ++k) {
    const int group = k / Group;
    pattern[k] = (group % 2) * lanes<T> + (group / 2 * 2 + half) * Group + k % Group;
  }
#if defined(__clang__)
  Vector<T> mixed;
  for (int k = 0; k < lanes<T>; ++k) {
    mixed[k] = pattern[k] < lanes<T> ? a[pattern[k]] : b[pattern[k] - lanes<T>];
  }
  return mixed;
#else
  return __builtin_shuffle(a, b, pattern);
#endif
}

// The sums of four vectors' lanes.
template <typename T>
ELSA_INLINE void sum_lanes(const Vector<T> (&v)[4], T (&sums)[4]) {
  const Vector<T> first = interleave<T, 1>(v[0], v[1], 0) + interleave<T, 1>(v[0], v[1], 1);
  const Vector<T> second = interleave<T, 1>(v[2], v[3], 0) + interleave<T, 1>(v[2], v[3], 1);
  if constexpr (lanes<T> == 2) {
    sums[0] = first[0], sums[1] = first[1], sums[2] = second[0], sums[3] = second[1];
  } else {
    Vector<T> all = interleave<T, 2>(first, second, 0) + interleave<T, 2>(first, second, 1);
    T parts[lanes<T>];
    std::memcpy(parts, &all, sizeof(parts));
    for (int k = 0; k < 4; ++k) {
      T sum = parts[k];
      for (int lane = k + 4; lane < lanes<T>; lane += 4) {
        sum += parts[lane];
      }
      sums[k] = sum;
    }
  }
}

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

ELSA_INLINE float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
ELSA_INLINE uint32_t to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

template <typename To, typename From>
ELSA_INLINE To convert(From value) {
  return static_cast<To>(value);
}
template <>
inline float convert<float, BFloat16>(BFloat16 value) {
  return from_bits(uint32_t(value.bits) << 16);
}
template <>
inline float convert<float, Float16>(Float16 value) {
  const uint32_t magnitude = value.bits & 0x7fffu;
  // 2^112 moves the exponent's bias from 15 to 127, and makes subnormals normal on the way.
  const float scaled = from_bits(magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;  // infinity or NaN
  return from_bits(to_bits(scaled) | special | uint32_t(value.bits & 0x8000u) << 16);
}
template <>
inline BFloat16 convert<BFloat16, float>(float value) {
  const uint32_t bits = to_bits(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return {uint16_t(value != value ? 0x7fc0u : rounded)};
}
template <>
inline Float16 convert<Float16, float>(float value) {
  const uint32_t sign = to_bits(value) >> 16 & 0x8000u;
  const uint32_t magnitude = to_bits(value) & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65536 or more
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {
    half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
  } else {  // subnormal: adding 0.5 leaves the rounded result in the low bits
    half = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
  }
  return {uint16_t(half | sign)};
}

// Memory for one thread's work, freed with its scope.
template <typename T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<T*>(::operator new(bytes(count), alignment()))) {}
  ~Scratch() { ::operator delete(data_, alignment()); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() { return data_; }

 private:
  static std::align_val_t alignment() { return std::align_val_t(64); }
  static std::size_t bytes(int64_t count) { return std::size_t(count > 0 ? count : 1) * sizeof(T); }
  T* data_;
};

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
