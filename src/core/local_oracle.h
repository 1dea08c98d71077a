// What the oracles of local attention share: the taps of every output and their logits, told by the definition of the
// borders, and by none of the kernels' tables.
#pragma once

#include <algorithm>
#include <cmath>

#include "oracle.h"

namespace elsa::oracle {

// A tap of an output: the pixel that it reads, if that is inside the map, and where it has its bias.
struct Tap {
  int64_t row, column;
  bool inside, counts;
  int64_t bias;  // of a head
};

struct Output {
  int64_t sample, head, row, column;
  std::vector<Tap> taps;
};

// A tap along one axis.
struct AxisTap {
  int64_t source, offset;  // offset: in dilations from the output
  bool inside, counts;
};

// That of an output at place i of an axis of `length`.
inline AxisTap axis_tap(const Arguments& given, int axis, int64_t length, int64_t i, int64_t tap) {
  const int64_t K = given.integer("kernel_size", axis);
  const int64_t d = given.integer("dilation", axis), w = given.integer("window_stride", axis);
  const std::string& border = given.word("border");
  if (border != "shift") {
    const double far = double(tap - K / 2) * double(d);  // in floating point: the dilation may be huge
    if (border == "circular") {
      const int64_t step = (tap - K / 2) % length * (d % length) % length;
      return {((i + step) % length + length) % length, tap - K / 2, true, true};
    }
    const bool inside = double(i) + far >= 0 && double(i) + far < double(length);
    return {inside ? i + int64_t(far) : 0, tap - K / 2, inside, inside || border == "zeros"};
  }
  const int64_t g = i % d, p = i / d, L = (length - g + d - 1) / d;
  const int64_t left = K / 2, right = K / 2 + K % 2 - 1;
  const bool causal = given.integer("causal", axis) != 0;
  int64_t start = std::min(p / w * w + (causal ? w - 1 : w / 2), L - 1);
  start = causal ? std::max<int64_t>(start - K + 1, 0) : std::min(std::max(start, left), L - 1 - right) - left;
  return {(start + tap) * d + g, start + tap - p, true, !causal || start + tap <= p};
}

inline std::vector<double> softmax(std::vector<double> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& logit : logits) sum += logit = std::exp(logit - largest);
  for (double& power : logits) power /= sum;
  return logits;
}

class Local {
 public:
  Local(const Arguments& given, const std::string& first)
      : given_(given), shape_(given.array(first).shape), heads_(given.integer("heads")) {
    const OptionalArray& bias = given.optional("bias");
    if (!bias) return;
    const auto& size = bias->shape;
    const int64_t rows = 2 * given.integer("kernel_size", 0) - 1, columns = 2 * given.integer("kernel_size", 1) - 1;
    relative_ = size.size() == 4 || (size.size() == 3 && size[0] == heads_ && size[1] == rows && size[2] == columns);
    per_sample_ = size.size() == 4 || (size.size() == 3 && !relative_);
  }

  template <typename Function>
  void for_each_output(const Function& f) const {
    for (int64_t b = 0; b < shape_[0]; ++b)
      for (int64_t h = 0; h < heads_; ++h)
        for (int64_t y = 0; y < shape_[2]; ++y)
          for (int64_t x = 0; x < shape_[3]; ++x) f(Output{b, h, y, x, taps(y, x)});
  }

  // Call f(channel) for the channels that an output's head has in a map.
  template <typename Function>
  void for_each_channel(const Output& output, const Array& map, const Function& f) const {
    const int64_t channels = map.shape[1] / heads_;
    for (int64_t c = output.head * channels; c < (output.head + 1) * channels; ++c) f(c);
  }

  template <typename Place>
  int64_t at(const Array& map, int64_t sample, int64_t channel, const Place& place) const {
    return ((sample * map.shape[1] + channel) * map.shape[2] + place.row) * map.shape[3] + place.column;
  }

  std::vector<double> logits(const Output& output) const {
    const Array &query = given_.array("query"), &key = given_.array("key");
    std::vector<double> logits;
    for (const Tap& tap : output.taps) {
      double sum = 0;
      for_each_channel(output, query, [&](int64_t c) {
        if (tap.inside) sum += query[at(query, output.sample, c, output)] * key[at(key, output.sample, c, tap)];
      });
      sum *= given_.number("scale");
      if (given_.optional("bias")) sum += (*given_.optional("bias"))[bias_at(output, tap)];
      logits.push_back(tap.counts ? sum : -INFINITY);
    }
    return logits;
  }

  // Add what the gradient of a tap's logit gives to those of query, key and bias.
  void add_gradients(const Output& output, const Tap& tap, double grad, Array& grad_query, Array& grad_key,
                     OptionalArray& grad_bias) const {
    if (!tap.counts) return;
    const Array &query = given_.array("query"), &key = given_.array("key");
    const double scaled = grad * given_.number("scale");
    for_each_channel(output, query, [&](int64_t c) {
      if (!tap.inside) return;
      const int64_t here = at(query, output.sample, c, output), there = at(key, output.sample, c, tap);
      grad_query[here] += scaled * key[there];
      grad_key[there] += scaled * query[here];
    });
    if (grad_bias) (*grad_bias)[bias_at(output, tap)] += grad;
  }

 private:
  int64_t bias_at(const Output& output, const Tap& tap) const {
    const auto& size = given_.optional("bias")->shape;
    const int64_t head_size = relative_ ? size[size.size() - 2] * size.back() : size.back();
    return ((per_sample_ ? output.sample : 0) * heads_ + output.head) * head_size + tap.bias;
  }

  std::vector<Tap> taps(int64_t y, int64_t x) const {
    const int64_t rows = given_.integer("kernel_size", 0), columns = given_.integer("kernel_size", 1);
    std::vector<Tap> taps;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const AxisTap row = axis_tap(given_, 0, shape_[2], y, i), column = axis_tap(given_, 1, shape_[3], x, j);
        const int64_t bias =
            relative_ ? (row.offset + rows - 1) * (2 * columns - 1) + column.offset + columns - 1 : i * columns + j;
        taps.push_back({row.source, column.source, row.inside && column.inside, row.counts && column.counts, bias});
      }
    }
    return taps;
  }

  const Arguments& given_;
  std::vector<int64_t> shape_;
  int64_t heads_;
  bool relative_ = false, per_sample_ = false;
};

}  // namespace elsa::oracle
