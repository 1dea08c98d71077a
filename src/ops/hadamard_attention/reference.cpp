// The oracle of hadamard_attention.
#include <algorithm>
#include <cmath>

#include "../../core/oracle.h"
#include "contract.h"

namespace elsa::hadamard_attention {
namespace {

using namespace oracle;

Shape shape_of(const Arguments& given) {
  const auto &query = given.array("query").shape, &conv_weight = given.array("conv_weight").shape;
  return {query[0],
          query[1],
          query[2],
          query[3],
          given.integer("heads"),
          {conv_weight[2], given.integer("dilation"), 1},
          given.integer("stride"),
          query[1] / conv_weight[1],
          given.integer("proj_groups")};
}

int64_t pixels(const Shape& s) { return s.out_height() * s.out_width(); }

// Calls f(product, input) with the index of every pair of inputs and where it is pooled to.
template <typename Function>
void for_each_pooled(const Shape& s, const Function& f) {
  for (int64_t plane = 0; plane < s.batch * s.channels; ++plane)
    for (int64_t y = 0; y < s.out_height() * s.pooling; ++y)
      for (int64_t x = 0; x < s.out_width() * s.pooling; ++x)
        f((plane * s.out_height() + y / s.pooling) * s.out_width() + x / s.pooling,
          (plane * s.height + y) * s.width + x);
}

// Calls f(out, weight, input) for every term of the grouped K × K convolution that lies inside the map.
template <typename Function>
void for_each_conv_term(const Shape& s, const Function& f) {
  const int64_t K = s.neighbourhood.kernel_size, dilation = s.neighbourhood.dilation, group_width = s.group_width();
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t out = 0; out < s.channels; ++out)
      for (int64_t k = 0; k < group_width; ++k)
        for (int64_t y = 0; y < s.out_height(); ++y)
          for (int64_t x = 0; x < s.out_width(); ++x)
            for (int64_t i = 0; i < K; ++i)
              for (int64_t j = 0; j < K; ++j) {
                const int64_t row = y + (i - K / 2) * dilation, column = x + (j - K / 2) * dilation;
                if (row < 0 || row >= s.out_height() || column < 0 || column >= s.out_width()) continue;
                const int64_t in = out / group_width * group_width + k;
                f((b * s.channels + out) * pixels(s) + y * s.out_width() + x, ((out * group_width + k) * K + i) * K + j,
                  (b * s.channels + in) * pixels(s) + row * s.out_width() + column);
              }
}

// Calls f(out, weight, input) for every term of the grouped 1 × 1 convolution.
template <typename Function>
void for_each_proj_term(const Shape& s, const Function& f) {
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t out = 0; out < s.attn_channels(); ++out)
      for (int64_t k = 0; k < s.terms(); ++k)
        for (int64_t p = 0; p < pixels(s); ++p)
          f((b * s.attn_channels() + out) * pixels(s) + p, out * s.terms() + k,
            (b * s.channels + out / s.outputs() * s.terms() + k) * pixels(s) + p);
}

// Calls f(first) with the index of the first tap of every softmax; the next taps lie pixels(s) apart.
template <typename Function>
void for_each_softmax(const Shape& s, const Function& f) {
  for (int64_t b = 0; b < s.batch * s.heads; ++b)
    for (int64_t p = 0; p < pixels(s); ++p) f(b * s.taps() * pixels(s) + p);
}

double normal_cdf(double x) { return 0.5 * (1 + std::erf(x * std::sqrt(0.5))); }
double gelu(double x) { return x * normal_cdf(x); }
double gelu_slope(double x) { return normal_cdf(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::acos(-1.0)); }

// The channel of an element of a map of `channels` channels.
int64_t channel_of(const Shape& s, int64_t index, int64_t channels) { return index / pixels(s) % channels; }

void add_bias(const Shape& s, const OptionalArray& bias, Array& map) {
  if (!bias) return;
  for (std::size_t k = 0; k < map.numbers.size(); ++k) map[k] += (*bias)[channel_of(s, k, bias->shape[0])];
}

OptionalArray bias_gradient(const Shape& s, const OptionalArray& bias, const Array& grad) {
  OptionalArray sum = gradient_of(bias);
  if (!sum) return sum;
  for (std::size_t k = 0; k < grad.numbers.size(); ++k) (*sum)[channel_of(s, k, bias->shape[0])] += grad[k];
  return sum;
}

struct Activations {
  Array product, before_gelu, hidden, attn;
};

Activations activations(const Shape& s, const Arguments& given) {
  const Array map({s.batch, s.channels, s.out_height(), s.out_width()});
  Activations a{map, map, map, Array({s.batch, s.attn_channels(), s.out_height(), s.out_width()})};
  const Array &query = given.array("query"), &key = given.array("key");
  const Array &conv_weight = given.array("conv_weight"), &proj_weight = given.array("proj_weight");
  const double pooled = given.number("scale") / double(s.pooling * s.pooling);
  for_each_pooled(s, [&](int64_t p, int64_t i) { a.product[p] += pooled * query[i] * key[i]; });
  for_each_conv_term(s, [&](int64_t o, int64_t w, int64_t i) { a.before_gelu[o] += conv_weight[w] * a.product[i]; });
  add_bias(s, given.optional("conv_bias"), a.before_gelu);
  std::transform(a.before_gelu.numbers.begin(), a.before_gelu.numbers.end(), a.hidden.numbers.begin(), gelu);
  for_each_proj_term(s, [&](int64_t o, int64_t w, int64_t i) { a.attn[o] += proj_weight[w] * a.hidden[i]; });
  add_bias(s, given.optional("proj_bias"), a.attn);
  for_each_softmax(s, [&](int64_t first) {
    const int64_t end = first + s.taps() * pixels(s);
    double most = a.attn[first], sum = 0;
    for (int64_t k = first; k < end; k += pixels(s)) most = std::max(most, a.attn[k]);
    for (int64_t k = first; k < end; k += pixels(s)) sum += a.attn[k] = std::exp(a.attn[k] - most);
    for (int64_t k = first; k < end; k += pixels(s)) a.attn[k] /= sum;
  });
  return a;
}

Results forward(const Arguments& given) { return {activations(shape_of(given), given).attn}; }

Results backward(const Arguments& given) {
  const Shape s = shape_of(given);
  const Activations a = activations(s, given);
  const Array &grad = given.array("grad"), &query = given.array("query"), &key = given.array("key");
  const Array &conv_weight = given.array("conv_weight"), &proj_weight = given.array("proj_weight");
  Array grad_logits(a.attn.shape), grad_hidden(a.hidden.shape), grad_product(a.product.shape);
  Array grad_query(query.shape), grad_key(key.shape);
  Array grad_conv_weight(conv_weight.shape), grad_proj_weight(proj_weight.shape);
  for_each_softmax(s, [&](int64_t first) {
    const int64_t end = first + s.taps() * pixels(s);
    double mean = 0;
    for (int64_t k = first; k < end; k += pixels(s)) mean += a.attn[k] * grad[k];
    for (int64_t k = first; k < end; k += pixels(s)) grad_logits[k] = a.attn[k] * (grad[k] - mean);
  });
  for_each_proj_term(s, [&](int64_t o, int64_t w, int64_t i) {
    grad_proj_weight[w] += grad_logits[o] * a.hidden[i];
    grad_hidden[i] += grad_logits[o] * proj_weight[w];
  });
  for (std::size_t k = 0; k < grad_hidden.numbers.size(); ++k) grad_hidden[k] *= gelu_slope(a.before_gelu[k]);
  for_each_conv_term(s, [&](int64_t o, int64_t w, int64_t i) {
    grad_conv_weight[w] += grad_hidden[o] * a.product[i];
    grad_product[i] += grad_hidden[o] * conv_weight[w];
  });
  const double pooled = given.number("scale") / double(s.pooling * s.pooling);
  for_each_pooled(s, [&](int64_t p, int64_t i) {
    grad_query[i] = pooled * grad_product[p] * key[i];
    grad_key[i] = pooled * grad_product[p] * query[i];
  });
  return {grad_query,       grad_key,
          grad_conv_weight, bias_gradient(s, given.optional("conv_bias"), grad_hidden),
          grad_proj_weight, bias_gradient(s, given.optional("proj_bias"), grad_logits)};
}

const Entry entries[] = {{"hadamard_attention", forward}, {"hadamard_attention_backward", backward}};

}  // namespace
}  // namespace elsa::hadamard_attention
