// How an op registers itself, in every library that has kernels of it: libelsa_cpu, libelsa_cuda, and the tests'
// library of emulated CUDA kernels. The build defines ELSA_LIBRARY, the namespace of the ops there, and ELSA_KEY, the
// dispatch key.
#pragma once

#include <platform.h>
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string_view>

#include "errors.h"

namespace elsa {

// A string literal as a template argument.
template <std::size_t Size>
struct Name {
  char text[Size];

  constexpr Name(const char (&literal)[Size]) { std::copy_n(literal, Size, text); }
};

// What the dispatcher calls: `Function` on the device of its first tensor. Whatever it throws names the op.
template <Name op, auto Function>
struct Entry;

template <Name op, typename Result, typename... Arguments, Result (*Function)(Arguments...)>
struct Entry<op, Function> {
  static Result call(Arguments... arguments) {
    try {
      return on_device_of(first_of(arguments...), [&] { return Function(arguments...); });
    } catch (const std::exception& error) {
      throw Error("elsa::" + std::string(op.text) + ": " + cause(error));
    }
  }

 private:
  template <typename First, typename... Rest>
  static const First& first_of(const First& first, const Rest&...) {
    return first;
  }
};

// Of the libraries that share the namespace elsa, the one with the CPU kernels is always loaded, and first. Any other
// namespace has one library.
constexpr bool defines_schemas =
    std::string_view(C10_STRINGIZE(ELSA_KEY)) == "CPU" || std::string_view(C10_STRINGIZE(ELSA_LIBRARY)) != "elsa";

}  // namespace elsa

// ELSA_OP(ghost_head, forward, "(…) -> Tensor") registers `forward` as elsa::ghost_head with that schema.
#define ELSA_OP(name, function, signature)                                    \
  STABLE_TORCH_LIBRARY_FRAGMENT(ELSA_LIBRARY, library) {                      \
    if constexpr (::elsa::defines_schemas) library.def(#name signature);      \
  }                                                                           \
  STABLE_TORCH_LIBRARY_IMPL(ELSA_LIBRARY, ELSA_KEY, library) {                \
    library.impl(#name, TORCH_BOX((&::elsa::Entry<#name, &function>::call))); \
  }
