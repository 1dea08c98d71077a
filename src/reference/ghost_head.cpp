#include <algorithm>

#include "reference.h"

namespace elsa::reference {
namespace {

// Calls f(out, attn, value, mul, add) with the index of every term of the sum that lies inside the map.
template <typename Function>
void for_each_term(const GhostHeadShape& s, const GhostHeadInputs& in, const Function& f) {
  const int64_t K = s.kernel_size, radius = K / 2;
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < s.channels; ++c)
      for (int64_t y = 0; y < s.out_height(); ++y)
        for (int64_t x = 0; x < s.out_width(); ++x)
          for (int64_t i = 0; i < K; ++i)
            for (int64_t j = 0; j < K; ++j) {
              const int64_t row = s.stride * y + (i - radius) * s.dilation;
              const int64_t column = s.stride * x + (j - radius) * s.dilation;
              if (row < 0 || row >= s.height || column < 0 || column >= s.width) continue;
              const int64_t head = c / s.head_channels(), tap = i * K + j, matrix = c * s.taps() + tap;
              const int64_t sample_matrix = b * s.channels * s.taps() + matrix;
              f(((b * s.channels + c) * s.out_height() + y) * s.out_width() + x,
                (((b * s.heads + head) * s.taps() + tap) * s.out_height() + y) * s.out_width() + x,
                ((b * s.channels + c) * s.height + row) * s.width + column, in.mul_per_sample ? sample_matrix : matrix,
                in.add_per_sample ? sample_matrix : matrix);
            }
}

}  // namespace

void ghost_head(const GhostHeadShape& s, const GhostHeadInputs& in, double* out) {
  std::fill_n(out, s.batch * s.channels * s.out_height() * s.out_width(), 0.0);
  for_each_term(s, in, [&](int64_t o, int64_t a, int64_t v, int64_t m, int64_t d) {
    out[o] += ((in.mul ? in.mul[m] : 1) * in.attn[a] + (in.add ? in.add[d] : 0)) * in.value[v];
  });
}

void ghost_head_backward(const GhostHeadShape& s, const GhostHeadInputs& in, const double* grad,
                         const GhostHeadGradients& to) {
  const int64_t matrix_size = s.channels * s.taps();
  std::fill_n(to.value, s.batch * s.channels * s.height * s.width, 0.0);
  std::fill_n(to.attn, s.batch * s.heads * s.taps() * s.out_height() * s.out_width(), 0.0);
  if (to.mul) std::fill_n(to.mul, (in.mul_per_sample ? s.batch : 1) * matrix_size, 0.0);
  if (to.add) std::fill_n(to.add, (in.add_per_sample ? s.batch : 1) * matrix_size, 0.0);
  for_each_term(s, in, [&](int64_t o, int64_t a, int64_t v, int64_t m, int64_t d) {
    const double mul = in.mul ? in.mul[m] : 1, add = in.add ? in.add[d] : 0, product = grad[o] * in.value[v];
    to.value[v] += (mul * in.attn[a] + add) * grad[o];
    to.attn[a] += mul * product;
    if (to.mul) to.mul[m] += in.attn[a] * product;
    if (to.add) to.add[d] += product;
  });
}

}  // namespace elsa::reference
