// The oracle: every op as scalar loops in double precision, by name. It shares no code with the kernels.
#pragma once

#include <cstdint>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

namespace elsa::oracle {

// A contiguous array.
struct Array {
  std::vector<int64_t> shape;
  std::vector<double> numbers;

  explicit Array(std::vector<int64_t> of_shape)
      : shape(std::move(of_shape)),
        numbers(std::accumulate(shape.begin(), shape.end(), int64_t(1), std::multiplies<int64_t>())) {}

  double& operator[](int64_t index) { return numbers[index]; }
  double operator[](int64_t index) const { return numbers[index]; }
};

using OptionalArray = std::optional<Array>;

// The arguments of a call. The caller has checked that they are what the op takes.
struct Arguments {
  std::map<std::string, OptionalArray> arrays;
  std::map<std::string, std::vector<double>> numbers;  // one, or one for each axis
  std::map<std::string, std::string> words;

  const OptionalArray& optional(const std::string& name) const { return arrays.at(name); }
  const Array& array(const std::string& name) const { return arrays.at(name).value(); }
  double number(const std::string& name, int axis = 0) const { return numbers.at(name).at(axis); }
  int64_t integer(const std::string& name, int axis = 0) const { return int64_t(number(name, axis)); }
  const std::string& word(const std::string& name) const { return words.at(name); }
};

// An array of zeros for the gradient of an argument, if that was given.
inline OptionalArray gradient_of(const OptionalArray& argument) {
  return argument ? OptionalArray(Array(argument->shape)) : std::nullopt;
}

using Results = std::vector<OptionalArray>;
using Function = Results (*)(const Arguments&);

inline std::map<std::string, Function>& functions() {
  static std::map<std::string, Function> by_op;
  return by_op;
}

// Registered where the op is restated: `const Entry entry("ghost_head", forward);`
struct Entry {
  Entry(const char* op, Function function) { functions().emplace(op, function); }
};

}  // namespace elsa::oracle
