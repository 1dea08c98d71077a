// elsa_ext._C: what is not an op. Build information, the instruction set in use, and the oracle on NumPy arrays.
//
// Shapes were checked by elsa_ext.reference, which is the only caller of the oracle.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>

#include "../reference/reference.h"
#include "elsa/launch_plan.h"

namespace py = pybind11;

namespace {

using Array = py::array_t<double, py::array::c_style>;
using OptionalArray = std::optional<Array>;

const double* data(const Array& array) { return array.data(); }
const double* data(const OptionalArray& array) { return array ? array->data() : nullptr; }
double* data(OptionalArray& array) { return array ? array->mutable_data() : nullptr; }

Array empty_like(const Array& array) {
  return Array(std::vector<py::ssize_t>(array.shape(), array.shape() + array.ndim()));
}
OptionalArray empty_like(const OptionalArray& array) {
  return array ? OptionalArray(empty_like(*array)) : std::nullopt;
}

elsa::GhostHeadShape ghost_head_shape(const Array& value, const Array& attn, int64_t kernel_size, int64_t dilation,
                                      int64_t stride) {
  return {value.shape(0), value.shape(1), value.shape(2), value.shape(3), attn.shape(1) / (kernel_size * kernel_size),
          kernel_size,    dilation,       stride};
}

elsa::reference::GhostHeadInputs ghost_head_inputs(const Array& value, const Array& attn, const OptionalArray& mul,
                                                   const OptionalArray& add) {
  return {data(value), data(attn), data(mul), data(add), mul && mul->ndim() == 4, add && add->ndim() == 4};
}

Array ghost_head(const Array& value, const Array& attn, const OptionalArray& mul, const OptionalArray& add,
                 int64_t kernel_size, int64_t dilation, int64_t stride) {
  const auto shape = ghost_head_shape(value, attn, kernel_size, dilation, stride);
  Array out({shape.batch, shape.channels, shape.out_height(), shape.out_width()});
  elsa::reference::ghost_head(shape, ghost_head_inputs(value, attn, mul, add), out.mutable_data());
  return out;
}

std::tuple<Array, Array, OptionalArray, OptionalArray> ghost_head_backward(const Array& grad, const Array& value,
                                                                           const Array& attn, const OptionalArray& mul,
                                                                           const OptionalArray& add,
                                                                           int64_t kernel_size, int64_t dilation,
                                                                           int64_t stride) {
  Array grad_value = empty_like(value), grad_attn = empty_like(attn);
  OptionalArray grad_mul = empty_like(mul), grad_add = empty_like(add);
  elsa::reference::ghost_head_backward(
      ghost_head_shape(value, attn, kernel_size, dilation, stride), ghost_head_inputs(value, attn, mul, add),
      data(grad), {grad_value.mutable_data(), grad_attn.mutable_data(), data(grad_mul), data(grad_add)});
  return {grad_value, grad_attn, grad_mul, grad_add};
}

elsa::HadamardShape hadamard_shape(const Array& query, const Array& conv_weight, int64_t heads, int64_t dilation,
                                   int64_t stride, int64_t proj_groups) {
  return {query.shape(0), query.shape(1), query.shape(2),
          query.shape(3), heads,          conv_weight.shape(2),
          dilation,       stride,         query.shape(1) / conv_weight.shape(1),
          proj_groups};
}

Array hadamard_attention(const Array& query, const Array& key, const Array& conv_weight, const OptionalArray& conv_bias,
                         const Array& proj_weight, const OptionalArray& proj_bias, int64_t heads, double scale,
                         int64_t dilation, int64_t stride, int64_t proj_groups) {
  const auto shape = hadamard_shape(query, conv_weight, heads, dilation, stride, proj_groups);
  Array attn({shape.batch, shape.attn_channels(), shape.out_height(), shape.out_width()});
  elsa::reference::hadamard_attention(
      shape, scale, {data(query), data(key), data(conv_weight), data(conv_bias), data(proj_weight), data(proj_bias)},
      attn.mutable_data());
  return attn;
}

std::tuple<Array, Array, Array, OptionalArray, Array, OptionalArray> hadamard_attention_backward(
    const Array& grad, const Array& query, const Array& key, const Array& conv_weight, const OptionalArray& conv_bias,
    const Array& proj_weight, const OptionalArray& proj_bias, int64_t heads, double scale, int64_t dilation,
    int64_t stride, int64_t proj_groups) {
  Array grad_query = empty_like(query), grad_key = empty_like(key), grad_conv_weight = empty_like(conv_weight),
        grad_proj_weight = empty_like(proj_weight);
  OptionalArray grad_conv_bias = empty_like(conv_bias), grad_proj_bias = empty_like(proj_bias);
  elsa::reference::hadamard_attention_backward(
      hadamard_shape(query, conv_weight, heads, dilation, stride, proj_groups), scale,
      {data(query), data(key), data(conv_weight), data(conv_bias), data(proj_weight), data(proj_bias)}, data(grad),
      {grad_query.mutable_data(), grad_key.mutable_data(), grad_conv_weight.mutable_data(), data(grad_conv_bias),
       grad_proj_weight.mutable_data(), data(grad_proj_bias)});
  return {grad_query, grad_key, grad_conv_weight, grad_conv_bias, grad_proj_weight, grad_proj_bias};
}

elsa::DType dtype_of(const std::string& name) {
  const std::map<std::string, elsa::DType> dtypes{{"float64", elsa::DType::float64},
                                                  {"float32", elsa::DType::float32},
                                                  {"bfloat16", elsa::DType::bfloat16},
                                                  {"float16", elsa::DType::float16}};
  const auto found = dtypes.find(name);
  if (found == dtypes.end()) {
    throw py::value_error("launch_plan: dtype must be float64, float32, bfloat16 or float16, got " + name);
  }
  return found->second;
}

void check_stride(int64_t stride) {
  if (stride < 1) throw py::value_error("launch_plan: stride must be positive, got " + std::to_string(stride));
}

elsa::cpu::LaunchPlan ghost_head_plan(int64_t batch, int64_t channels, int64_t height, int64_t width, int64_t heads,
                                      int64_t kernel_size, int64_t dilation, int64_t stride, const std::string& dtype) {
  check_stride(stride);
  return elsa::cpu::launch_plan(
      elsa::GhostHeadShape{batch, channels, height, width, heads, kernel_size, dilation, stride}, dtype_of(dtype));
}

elsa::cpu::LaunchPlan hadamard_attention_plan(int64_t batch, int64_t channels, int64_t height, int64_t width,
                                              int64_t heads, int64_t kernel_size, int64_t groups, int64_t dilation,
                                              int64_t stride, int64_t proj_groups, const std::string& dtype) {
  check_stride(stride);
  return elsa::cpu::launch_plan(
      elsa::HadamardShape{batch, channels, height, width, heads, kernel_size, dilation, stride, groups, proj_groups},
      dtype_of(dtype));
}

std::map<std::string, std::string> build_info() {
  return {{"version", ELSA_VERSION},
          {"compiler", ELSA_COMPILER},
          {"torch built against", ELSA_TORCH_VERSION},
          {"torch required", ">= 2.10"},
          {"CUDA kernels", ELSA_CUDA_BUILD},
          {"cpu_capability", elsa::cpu::name(elsa::cpu::capability())},
          {"cpu_capability of this machine", elsa::cpu::name(elsa::cpu::best_capability())}};
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.def("build_info", &build_info);
  module.attr("cuda_build") = ELSA_CUDA_BUILD;
  py::dict plans;
  plans["ghost_head"] =
      py::cpp_function(&ghost_head_plan, py::name("launch_plan"), py::kw_only(), py::arg("batch"), py::arg("channels"),
                       py::arg("height"), py::arg("width"), py::arg("heads"), py::arg("kernel_size"),
                       py::arg("dilation") = 1, py::arg("stride") = 1, py::arg("dtype") = "float32");
  plans["hadamard_attention"] = py::cpp_function(
      &hadamard_attention_plan, py::name("launch_plan"), py::kw_only(), py::arg("batch"), py::arg("channels"),
      py::arg("height"), py::arg("width"), py::arg("heads"), py::arg("kernel_size"), py::arg("groups"),
      py::arg("dilation") = 1, py::arg("stride") = 1, py::arg("proj_groups") = 1, py::arg("dtype") = "float32");
  module.def("launch_plan", [plans](const std::string& op, const py::kwargs& shape) -> py::object {
    if (!plans.contains(op)) throw py::value_error("launch_plan: no op has the name " + op);
    return plans[op.c_str()](**shape);
  });
  auto reference = module.def_submodule("reference");
  reference.def("ghost_head", &ghost_head);
  reference.def("ghost_head_backward", &ghost_head_backward);
  reference.def("hadamard_attention", &hadamard_attention);
  reference.def("hadamard_attention_backward", &hadamard_attention_backward);
}
