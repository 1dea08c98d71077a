// The oracle of neighborhood_logits.
#include "../../core/local_oracle.h"

namespace elsa::neighborhood_logits {
namespace {

using namespace oracle;

// Where the logit of the k-th tap of an output is, in a map of all taps of all heads.
int64_t place(const Local& local, const Array& map, const Output& output, size_t k) {
  return local.at(map, output.sample, output.head * int64_t(output.taps.size()) + int64_t(k), output);
}

Results forward(const Arguments& given) {
  const Array& query = given.array("query");
  const Local local(given, "query");
  const int64_t taps = given.integer("kernel_size", 0) * given.integer("kernel_size", 1);
  Array out({query.shape[0], given.integer("heads") * taps, query.shape[2], query.shape[3]});
  local.for_each_output([&](const Output& output) {
    const std::vector<double> logits = local.logits(output);
    for (size_t k = 0; k < logits.size(); ++k) out[place(local, out, output, k)] = logits[k];
  });
  return {out};
}

Results backward(const Arguments& given) {
  const Array &query = given.array("query"), &key = given.array("key"), &grad = given.array("grad");
  const Local local(given, "query");
  Array grad_query(query.shape), grad_key(key.shape);
  OptionalArray grad_bias = gradient_of(given.optional("bias"));
  local.for_each_output([&](const Output& output) {
    for (size_t k = 0; k < output.taps.size(); ++k) {
      const double number = grad[place(local, grad, output, k)];
      local.add_gradients(output, output.taps[k], number, grad_query, grad_key, grad_bias);
    }
  });
  return {grad_query, grad_key, grad_bias};
}

const Entry entries[] = {{"neighborhood_logits", forward}, {"neighborhood_logits_backward", backward}};

}  // namespace
}  // namespace elsa::neighborhood_logits
