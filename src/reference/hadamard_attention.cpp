#include <algorithm>
#include <cmath>
#include <vector>

#include "reference.h"

namespace elsa::reference {
namespace {

using Array = std::vector<double>;

int64_t pixels(const HadamardShape& s) { return s.out_height() * s.out_width(); }

// Calls f(product, input) with the index of every pair of inputs and where it is pooled to.
template <typename Function>
void for_each_pooled(const HadamardShape& s, const Function& f) {
  for (int64_t plane = 0; plane < s.batch * s.channels; ++plane)
    for (int64_t y = 0; y < s.out_height() * s.stride; ++y)
      for (int64_t x = 0; x < s.out_width() * s.stride; ++x)
        f((plane * s.out_height() + y / s.stride) * s.out_width() + x / s.stride, (plane * s.height + y) * s.width + x);
}

// Calls f(out, weight, input) for every term of the grouped K × K convolution that lies inside the map.
template <typename Function>
void for_each_conv_term(const HadamardShape& s, const Function& f) {
  const int64_t K = s.kernel_size, radius = K / 2, group_width = s.channels / s.groups;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t out = 0; out < s.channels; ++out)
      for (int64_t k = 0; k < group_width; ++k)
        for (int64_t y = 0; y < s.out_height(); ++y)
          for (int64_t x = 0; x < s.out_width(); ++x)
            for (int64_t i = 0; i < K; ++i)
              for (int64_t j = 0; j < K; ++j) {
                const int64_t row = y + (i - radius) * s.dilation, column = x + (j - radius) * s.dilation;
                if (row < 0 || row >= s.out_height() || column < 0 || column >= s.out_width()) continue;
                const int64_t in = out / group_width * group_width + k;
                f((b * s.channels + out) * pixels(s) + y * s.out_width() + x, ((out * group_width + k) * K + i) * K + j,
                  (b * s.channels + in) * pixels(s) + row * s.out_width() + column);
              }
}

// Calls f(out, weight, input) for every term of the grouped 1 × 1 convolution.
template <typename Function>
void for_each_proj_term(const HadamardShape& s, const Function& f) {
  const int64_t in_width = s.channels / s.proj_groups, out_width = s.attn_channels() / s.proj_groups;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t out = 0; out < s.attn_channels(); ++out)
      for (int64_t k = 0; k < in_width; ++k)
        for (int64_t p = 0; p < pixels(s); ++p)
          f((b * s.attn_channels() + out) * pixels(s) + p, out * in_width + k,
            (b * s.channels + out / out_width * in_width + k) * pixels(s) + p);
}

// Calls f(first) with the index of the first tap of every softmax; the next taps lie pixels(s) apart.
template <typename Function>
void for_each_softmax(const HadamardShape& s, const Function& f) {
  for (int64_t b = 0; b < s.batch * s.heads; ++b)
    for (int64_t p = 0; p < pixels(s); ++p) f(b * s.kernel_size * s.kernel_size * pixels(s) + p);
}

double normal_cdf(double x) { return 0.5 * (1 + std::erf(x * std::sqrt(0.5))); }
double gelu(double x) { return x * normal_cdf(x); }
double gelu_slope(double x) { return normal_cdf(x) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::acos(-1.0)); }

void add_bias(const HadamardShape& s, const double* bias, int64_t channels, double* map) {
  for (int64_t k = 0; bias && k < s.batch * channels * pixels(s); ++k) map[k] += bias[k / pixels(s) % channels];
}

void sum_to_bias(const HadamardShape& s, const double* map, int64_t channels, double* bias) {
  if (bias == nullptr) return;
  std::fill_n(bias, channels, 0.0);
  for (int64_t k = 0; k < s.batch * channels * pixels(s); ++k) bias[k / pixels(s) % channels] += map[k];
}

struct Activations {
  Array product, before_gelu, hidden, attn;
};

Activations activations(const HadamardShape& s, double scale, const HadamardInputs& in) {
  const int64_t size = s.batch * s.channels * pixels(s);
  Activations a{Array(size), Array(size), Array(size), Array(s.batch * s.attn_channels() * pixels(s))};
  const double pooled = scale / double(s.stride * s.stride);
  for_each_pooled(s, [&](int64_t p, int64_t i) { a.product[p] += pooled * in.query[i] * in.key[i]; });
  for_each_conv_term(s, [&](int64_t o, int64_t w, int64_t i) { a.before_gelu[o] += in.conv_weight[w] * a.product[i]; });
  add_bias(s, in.conv_bias, s.channels, a.before_gelu.data());
  std::transform(a.before_gelu.begin(), a.before_gelu.end(), a.hidden.begin(), gelu);
  for_each_proj_term(s, [&](int64_t o, int64_t w, int64_t i) { a.attn[o] += in.proj_weight[w] * a.hidden[i]; });
  add_bias(s, in.proj_bias, s.attn_channels(), a.attn.data());
  for_each_softmax(s, [&](int64_t first) {
    const int64_t end = first + s.kernel_size * s.kernel_size * pixels(s);
    double most = a.attn[first], sum = 0;
    for (int64_t k = first; k < end; k += pixels(s)) most = std::max(most, a.attn[k]);
    for (int64_t k = first; k < end; k += pixels(s)) sum += a.attn[k] = std::exp(a.attn[k] - most);
    for (int64_t k = first; k < end; k += pixels(s)) a.attn[k] /= sum;
  });
  return a;
}

}  // namespace

void hadamard_attention(const HadamardShape& s, double scale, const HadamardInputs& in, double* attn) {
  const Activations a = activations(s, scale, in);
  std::copy(a.attn.begin(), a.attn.end(), attn);
}

void hadamard_attention_backward(const HadamardShape& s, double scale, const HadamardInputs& in, const double* grad,
                                 const HadamardGradients& to) {
  const Activations a = activations(s, scale, in);
  Array grad_logits(a.attn.size()), grad_hidden(a.hidden.size()), grad_product(a.product.size());
  for_each_softmax(s, [&](int64_t first) {
    const int64_t end = first + s.kernel_size * s.kernel_size * pixels(s);
    double mean = 0;
    for (int64_t k = first; k < end; k += pixels(s)) mean += a.attn[k] * grad[k];
    for (int64_t k = first; k < end; k += pixels(s)) grad_logits[k] = a.attn[k] * (grad[k] - mean);
  });

  sum_to_bias(s, grad_logits.data(), s.attn_channels(), to.proj_bias);
  std::fill_n(to.proj_weight, s.attn_channels() * s.channels / s.proj_groups, 0.0);
  for_each_proj_term(s, [&](int64_t o, int64_t w, int64_t i) {
    to.proj_weight[w] += grad_logits[o] * a.hidden[i];
    grad_hidden[i] += grad_logits[o] * in.proj_weight[w];
  });
  for (std::size_t k = 0; k < grad_hidden.size(); ++k) grad_hidden[k] *= gelu_slope(a.before_gelu[k]);

  sum_to_bias(s, grad_hidden.data(), s.channels, to.conv_bias);
  std::fill_n(to.conv_weight, s.channels * s.channels / s.groups * s.kernel_size * s.kernel_size, 0.0);
  for_each_conv_term(s, [&](int64_t o, int64_t w, int64_t i) {
    to.conv_weight[w] += grad_hidden[o] * a.product[i];
    grad_product[i] += grad_hidden[o] * in.conv_weight[w];
  });

  const double pooled = scale / double(s.stride * s.stride);
  std::fill_n(to.query, s.batch * s.channels * s.height * s.width, 0.0);
  std::fill_n(to.key, s.batch * s.channels * s.height * s.width, 0.0);
  for_each_pooled(s, [&](int64_t p, int64_t i) {
    to.query[i] = pooled * grad_product[p] * in.key[i];
    to.key[i] = pooled * grad_product[p] * in.query[i];
  });
}

}  // namespace elsa::reference
