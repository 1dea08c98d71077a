// elsa_ext._C: what is not an op and nothing at run time depends on: launch plans, and the oracle on NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <string>
#include <variant>

#include "../core/launch_plan.h"
#include "../core/oracle.h"

namespace py = pybind11;

namespace {

using NumpyArray = py::array_t<double, py::array::c_style>;

elsa::oracle::Array from_numpy(const NumpyArray& from) {
  elsa::oracle::Array array(std::vector<int64_t>(from.shape(), from.shape() + from.ndim()));
  std::copy_n(from.data(), array.numbers.size(), array.numbers.begin());
  return array;
}

NumpyArray to_numpy(const elsa::oracle::Array& array) { return NumpyArray(array.shape, array.numbers.data()); }

// The arguments have been checked by elsa_ext.reference, which is the only caller.
std::vector<std::optional<NumpyArray>> oracle(const std::string& op,
                                              const std::map<std::string, std::optional<NumpyArray>>& arrays,
                                              const std::map<std::string, std::vector<double>>& numbers,
                                              const std::map<std::string, std::string>& words) {
  const auto function = elsa::oracle::functions().find(op);
  if (function == elsa::oracle::functions().end()) throw py::value_error("oracle: no op has the name " + op);
  elsa::oracle::Arguments arguments{{}, numbers, words};
  for (const auto& [name, array] : arrays) {
    arguments.arrays.emplace(name, array ? elsa::oracle::OptionalArray(from_numpy(*array)) : std::nullopt);
  }
  std::vector<std::optional<NumpyArray>> results;
  for (const auto& result : function->second(arguments)) {
    results.push_back(result ? std::optional(to_numpy(*result)) : std::nullopt);
  }
  return results;
}

elsa::DType dtype_of(const std::string& name) {
  const std::map<std::string, elsa::DType> dtypes{{"float64", elsa::DType::float64},
                                                  {"float32", elsa::DType::float32},
                                                  {"bfloat16", elsa::DType::bfloat16},
                                                  {"float16", elsa::DType::float16}};
  const auto found = dtypes.find(name);
  if (found == dtypes.end()) {
    throw std::invalid_argument("dtype must be float64, float32, bfloat16 or float16, got " + name);
  }
  return found->second;
}

elsa::LaunchPlan launch_plan(const std::string& op, const std::string& dtype, const py::kwargs& shape) {
  std::map<std::string, std::vector<int64_t>> numbers;
  std::map<std::string, std::string> words;
  for (const auto& [key, value] : shape) {
    const std::string name = key.cast<std::string>();
    try {
      if (py::isinstance<py::str>(value)) {
        words.emplace(name, value.cast<std::string>());
      } else if (py::isinstance<py::sequence>(value)) {
        numbers.emplace(name, value.cast<std::vector<int64_t>>());
      } else {
        numbers.emplace(name, std::vector{value.cast<int64_t>()});
      }
    } catch (const py::cast_error&) {
      throw py::type_error("launch_plan: " + op + ": " + name + " must be an integer, got " +
                           py::repr(value).cast<std::string>());
    }
  }
  try {
    return elsa::launch_plan(op, {numbers, words, dtype_of(dtype)});
  } catch (const std::invalid_argument& error) {
    throw py::value_error("launch_plan: " + op + ": " + error.what());
  }
}

}  // namespace

PYBIND11_MODULE(_C, module, py::mod_gil_not_used()) {
  module.def("launch_plan", &launch_plan, py::arg("op"), py::kw_only(), py::arg("dtype") = "float32");
  module.def("oracle", &oracle);
}
