// The oracle of neighborhood_attention.
#include "../../core/local_oracle.h"

namespace elsa::neighborhood_attention {
namespace {

using namespace oracle;

Results forward(const Arguments& given) {
  const Array& value = given.array("value");
  const Local local(given, "query");
  Array out(value.shape);
  local.for_each_output([&](const Output& output) {
    const std::vector<double> attn = softmax(local.logits(output));
    local.for_each_channel(output, value, [&](int64_t channel) {
      double sum = 0;
      for (size_t k = 0; k < output.taps.size(); ++k) {
        if (output.taps[k].inside) sum += attn[k] * value[local.at(value, output.sample, channel, output.taps[k])];
      }
      out[local.at(out, output.sample, channel, output)] = sum;
    });
  });
  return {out};
}

Results backward(const Arguments& given) {
  const Array &query = given.array("query"), &key = given.array("key"), &value = given.array("value");
  const Array& grad = given.array("grad");
  const Local local(given, "query");
  Array grad_query(query.shape), grad_key(key.shape), grad_value(value.shape);
  OptionalArray grad_bias = gradient_of(given.optional("bias"));
  local.for_each_output([&](const Output& output) {
    const std::vector<double> attn = softmax(local.logits(output));
    std::vector<double> grad_attn(attn.size());
    double mean = 0;
    for (size_t k = 0; k < attn.size(); ++k) {
      const Tap& tap = output.taps[k];
      if (!tap.inside) continue;
      local.for_each_channel(output, value, [&](int64_t channel) {
        const double number = grad[local.at(grad, output.sample, channel, output)];
        grad_attn[k] += number * value[local.at(value, output.sample, channel, tap)];
        grad_value[local.at(value, output.sample, channel, tap)] += attn[k] * number;
      });
      mean += attn[k] * grad_attn[k];
    }
    for (size_t k = 0; k < attn.size(); ++k) {
      local.add_gradients(output, output.taps[k], attn[k] * (grad_attn[k] - mean), grad_query, grad_key, grad_bias);
    }
  });
  return {grad_query, grad_key, grad_value, grad_bias};
}

const Entry entries[] = {{"neighborhood_attention", forward}, {"neighborhood_attention_backward", backward}};

}  // namespace
}  // namespace elsa::neighborhood_attention
