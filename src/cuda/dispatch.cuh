// Run-time properties of a call as template arguments of its kernel.
#pragma once

#include <device.cuh>
#include <type_traits>

#include "elsa/ghost_head.h"

namespace elsa::cuda {

// Call f(std::true_type) or f(std::false_type).
template <typename Function>
void choose(bool flag, const Function& function) {
  flag ? function(std::true_type()) : function(std::false_type());
}

template <typename T>
struct Type {
  using type = T;
};

// Call f(Type<T>) for a dtype whose accumulation type is float32.
template <typename Function>
void choose_narrow(DType dtype, const Function& function) {
  switch (dtype) {
    case DType::bfloat16:
      return function(Type<bfloat16>());
    case DType::float16:
      return function(Type<float16>());
    default:
      return function(Type<float>());
  }
}

// Call f(Type<T>) for any dtype.
template <typename Function>
void choose_type(DType dtype, const Function& function) {
  dtype == DType::float64 ? function(Type<double>()) : choose_narrow(dtype, function);
}

}  // namespace elsa::cuda
