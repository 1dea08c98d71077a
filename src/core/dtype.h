// The number types of the ops.
#pragma once

#include <cstdint>

namespace elsa {

enum class DType { float64, float32, bfloat16, float16 };

constexpr int64_t size_of(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }

// What numbers of `dtype` are added up in.
constexpr DType accumulation(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

}  // namespace elsa
