// Vectors of the instruction set that this translation unit is compiled for, and conversions from and to 16-bit floats.
//
// Everything here has internal linkage: the linker must never pick one instruction set's copy for another's caller.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

// Conversions from and to 16-bit floats, which the compiler has no operator for.
#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "../core/dtype.h"

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

// How many vectors the instruction set has registers for.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int vector_registers = 32;
#else
constexpr int vector_registers = 16;
#endif

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

// Compute v here, once, neither earlier nor later: where every register is taken the compiler must not reorder, and a
// product that goes to several sums must not be fused into each of them.
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

// In every run of `run` lanes, its k-th one in all of them.
template <typename T>
ELSA_INLINE Vector<T> spread(Vector<T> v, int run, int k) {
  typename Simd<T>::Lanes pattern;
  for (int lane = 0; lane < lanes<T>; ++lane) pattern[lane] = lane / run * run + k;
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

// Lane k of a pattern of runs of `Run` lanes, taken in turn from the first and the second operand of a shuffle.
// half = 0 takes the even runs, half = 1 the odd ones.
template <typename T, int Run>
ELSA_INLINE Vector<T> interleave(Vector<T> a, Vector<T> b, int half) {
  typename Simd<T>::Lanes pattern;
  for (int k = 0; k < lanes<T>; ++k) {
    const int run = k / Run;
    pattern[k] = (run % 2) * lanes<T> + (run / 2 * 2 + half) * Run + k % Run;
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

// Lane l of the result is a part of the sum of vector l % Count: whole where Count is the number of lanes.
template <typename T, int Count, int Run = 1>
ELSA_INLINE Vector<T> merge_sums(const Vector<T>* v) {
  if constexpr (Count == 1) {
    return v[0];
  } else {
    Vector<T> half[Count / 2];
    for (int k = 0; k < Count / 2; ++k) {
      const Vector<T>&a = v[2 * k], &b = v[2 * k + 1];
      half[k] = interleave<T, Run>(a, b, 0) + interleave<T, Run>(a, b, 1);
    }
    return merge_sums<T, Count / 2, Run * 2>(half);
  }
}

template <typename T, int Count, int Distance = lanes<T> / 2>
ELSA_INLINE Vector<T> fold_sums(Vector<T> v) {
  if constexpr (Distance < Count) {
    return v;
  } else {
    return fold_sums<T, Count, Distance / 2>(v + rotate<T, Distance>(v));
  }
}

// sums[k] += the sum of v[k]'s lanes. Count is a power of two.
template <typename T, int Count>
ELSA_INLINE void add_lanes(const Vector<T>* v, T* sums) {
  constexpr int L = lanes<T>;
  if constexpr (Count > L) {
    add_lanes<T, Count / 2>(v, sums);
    add_lanes<T, Count / 2>(v + Count / 2, sums + Count / 2);
  } else {
    typedef T Sums __attribute__((vector_size(Count * sizeof(T))));
    const Vector<T> merged = fold_sums<T, Count>(merge_sums<T, Count>(v));
    Sums total, part;
    std::memcpy(&total, sums, sizeof(total));
    std::memcpy(&part, &merged, sizeof(part));
    total += part;
    std::memcpy(sums, &total, sizeof(total));
  }
}

// Element l of v[k] becomes element k of v[l].
template <typename T, int Run = 1>
ELSA_INLINE void transpose(Vector<T> (&v)[lanes<T>]) {
  if constexpr (Run < lanes<T>) {
#pragma GCC unroll 16
    for (int k = 0; k < lanes<T>; ++k) {
      if ((k & Run) == 0) {
        const Vector<T> a = v[k], b = v[k | Run];
        v[k] = interleave<T, Run>(a, b, 0);
        v[k | Run] = interleave<T, Run>(a, b, 1);
      }
    }
    transpose<T, Run * 2>(v);
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

typedef uint16_t HalfWords __attribute__((vector_size(ELSA_VECTOR_BYTES / 2)));
typedef uint32_t Words __attribute__((vector_size(ELSA_VECTOR_BYTES)));

// A vector from a row of elements of another type.
template <typename T, typename From>
ELSA_INLINE Vector<T> load_as(const From* from) {
  if constexpr (std::is_same_v<From, BFloat16>) {
    HalfWords halves;
    std::memcpy(&halves, from, sizeof(halves));
    return Vector<T>(__builtin_convertvector(halves, Words) << 16);
#if defined(__AVX512F__) && ELSA_VECTOR_BYTES == 64
  } else if constexpr (std::is_same_v<From, Float16>) {
    __m256i halves;
    std::memcpy(&halves, from, sizeof(halves));
    return Vector<T>(_mm512_maskz_cvtph_ps(0xffff, halves));
#elif defined(__F16C__) && ELSA_VECTOR_BYTES == 32
  } else if constexpr (std::is_same_v<From, Float16>) {
    __m128i halves;
    std::memcpy(&halves, from, sizeof(halves));
    return Vector<T>(_mm256_cvtph_ps(halves));
#elif defined(__aarch64__)
  } else if constexpr (std::is_same_v<From, Float16>) {
    return Vector<T>(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&from->bits))));
#endif
  } else {
    T values[lanes<T>];
    for (int l = 0; l < lanes<T>; ++l) values[l] = convert<T>(from[l]);
    return load_unaligned(values);
  }
}

// A vector from the first `count` elements of a row, and zeros.
template <typename T, typename From>
ELSA_INLINE Vector<T> load_some(const From* from, int64_t count) {
  if (count >= lanes<T>) return load_as<T>(from);
  From values[lanes<T>] = {};
  std::memcpy(values, from, std::size_t(count) * sizeof(From));
  return load_as<T>(values);
}

template <typename T, typename To>
ELSA_INLINE void store_as(To* to, Vector<T> v) {
  if constexpr (std::is_same_v<To, BFloat16>) {
    const Words bits = Words(v), rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const HalfWords halves = __builtin_convertvector(v != v ? Words{} + 0x7fc0u : rounded, HalfWords);
    std::memcpy(to, &halves, sizeof(halves));
#if defined(__AVX512F__) && ELSA_VECTOR_BYTES == 64
  } else if constexpr (std::is_same_v<To, Float16>) {
    const __m256i halves = _mm512_maskz_cvtps_ph(0xffff, __m512(v), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(to, &halves, sizeof(halves));
#elif defined(__F16C__) && ELSA_VECTOR_BYTES == 32
  } else if constexpr (std::is_same_v<To, Float16>) {
    const __m128i halves = _mm256_cvtps_ph(__m256(v), _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(to, &halves, sizeof(halves));
#elif defined(__aarch64__)
  } else if constexpr (std::is_same_v<To, Float16>) {
    vst1_u16(&to->bits, vreinterpret_u16_f16(vcvt_f16_f32(float32x4_t(v))));
#endif
  } else {
    T values[lanes<T>];
    store_unaligned(values, v);
    for (int l = 0; l < lanes<T>; ++l) to[l] = convert<To>(values[l]);
  }
}

// The first `count` lanes.
template <typename T, typename To>
ELSA_INLINE void store_some(To* to, Vector<T> v, int64_t count) {
  if (count >= lanes<T>) return store_as<T>(to, v);
  To values[lanes<T>];
  store_as<T>(values, v);
  std::memcpy(to, values, std::size_t(count) * sizeof(To));
}

}  // namespace
}  // namespace elsa::cpu::ELSA_CAPABILITY
