// The oracle of ghost_head.
#include "../../core/local_oracle.h"

namespace elsa::ghost_head {
namespace {

using namespace oracle;

// Where every term of the sum has its numbers.
struct Term {
  int64_t out, attn, value, mul, add;
};

// Calls f(term) for every term that counts and lies inside the map.
template <typename Function>
void for_each_term(const Arguments& given, const Function& f) {
  const auto &value = given.array("value").shape, &attn = given.array("attn").shape;
  const int64_t batch = value[0], channels = value[1], height = value[2], width = value[3];
  const int64_t rows = given.integer("kernel_size", 0), columns = given.integer("kernel_size", 1);
  const int64_t taps = rows * columns, head_channels = channels / (attn[1] / taps);
  const auto per_sample = [](const OptionalArray& matrix) { return matrix && matrix->shape.size() == 4; };
  const bool mul_per_sample = per_sample(given.optional("ghost_mul"));
  const bool add_per_sample = per_sample(given.optional("ghost_add"));
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t y = 0; y < attn[2]; ++y)
        for (int64_t x = 0; x < attn[3]; ++x)
          for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < columns; ++j) {
              const AxisTap row = axis_tap(given, 0, height, y * given.integer("stride", 0), i);
              const AxisTap column = axis_tap(given, 1, width, x * given.integer("stride", 1), j);
              if (!row.inside || !column.inside || !row.counts || !column.counts) continue;
              const int64_t tap = i * columns + j, matrix = c * taps + tap,
                            sample_matrix = b * channels * taps + matrix;
              f(Term{((b * channels + c) * attn[2] + y) * attn[3] + x,
                     ((b * attn[1] + c / head_channels * taps + tap) * attn[2] + y) * attn[3] + x,
                     ((b * channels + c) * height + row.source) * width + column.source,
                     mul_per_sample ? sample_matrix : matrix, add_per_sample ? sample_matrix : matrix});
            }
}

Results forward(const Arguments& given) {
  const Array &value = given.array("value"), &attn = given.array("attn");
  const OptionalArray &mul = given.optional("ghost_mul"), &add = given.optional("ghost_add");
  Array out({value.shape[0], value.shape[1], attn.shape[2], attn.shape[3]});
  for_each_term(given, [&](const Term& t) {
    out[t.out] += ((mul ? (*mul)[t.mul] : 1) * attn[t.attn] + (add ? (*add)[t.add] : 0)) * value[t.value];
  });
  return {out};
}

Results backward(const Arguments& given) {
  const Array &grad = given.array("grad"), &value = given.array("value"), &attn = given.array("attn");
  const OptionalArray &mul = given.optional("ghost_mul"), &add = given.optional("ghost_add");
  Array grad_value(value.shape), grad_attn(attn.shape);
  OptionalArray grad_mul = gradient_of(mul), grad_add = gradient_of(add);
  for_each_term(given, [&](const Term& t) {
    const double factor = mul ? (*mul)[t.mul] : 1, shift = add ? (*add)[t.add] : 0;
    const double product = grad[t.out] * value[t.value];
    grad_value[t.value] += (factor * attn[t.attn] + shift) * grad[t.out];
    grad_attn[t.attn] += factor * product;
    if (grad_mul) (*grad_mul)[t.mul] += attn[t.attn] * product;
    if (grad_add) (*grad_add)[t.add] += product;
  });
  return {grad_value, grad_attn, grad_mul, grad_add};
}

const Entry entries[] = {{"ghost_head", forward}, {"ghost_head_backward", backward}};

}  // namespace
}  // namespace elsa::ghost_head
