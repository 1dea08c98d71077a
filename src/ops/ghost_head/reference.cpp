// The oracle of ghost_head.
#include "../../core/oracle.h"
#include "contract.h"

namespace elsa::ghost_head {
namespace {

using namespace oracle;

Shape shape_of(const Arguments& given) {
  const auto& value = given.array("value").shape;
  const int64_t kernel_size = given.integer("kernel_size");
  return {value[0],
          value[1],
          value[2],
          value[3],
          given.array("attn").shape[1] / (kernel_size * kernel_size),
          {kernel_size, given.integer("dilation"), given.integer("stride")}};
}

// Where every term of the sum has its numbers.
struct Term {
  int64_t out, attn, value, mul, add;
};

// Calls f(term) for every term that lies inside the map.
template <typename Function>
void for_each_term(const Arguments& given, const Function& f) {
  const Shape s = shape_of(given);
  const int64_t K = s.neighbourhood.kernel_size;
  const int64_t dilation = s.neighbourhood.dilation, stride = s.neighbourhood.stride;
  const auto per_sample = [](const OptionalArray& matrix) { return matrix && matrix->shape.size() == 4; };
  const bool mul_per_sample = per_sample(given.optional("ghost_mul"));
  const bool add_per_sample = per_sample(given.optional("ghost_add"));
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t y = 0; y < s.out_height(); ++y)
        for (int64_t x = 0; x < s.out_width(); ++x)
          for (int64_t i = 0; i < K; ++i)
            for (int64_t j = 0; j < K; ++j) {
              const int64_t row = stride * y + (i - K / 2) * dilation, column = stride * x + (j - K / 2) * dilation;
              if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
              const int64_t head = c / s.head_channels(), tap = i * K + j, matrix = c * s.taps() + tap;
              const int64_t sample_matrix = b * s.channels * s.taps() + matrix;
              f(Term{((b * s.channels + c) * s.out_height() + y) * s.out_width() + x,
                     (((b * s.heads + head) * s.taps() + tap) * s.out_height() + y) * s.out_width() + x,
                     ((b * s.channels + c) * s.height + row) * s.width + column,
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
