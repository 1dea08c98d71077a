// CPU kernels of neighborhood_attention, compiled once per instruction set. A tile stays in the caches from the
// products of its queries and keys to its result; its backward makes the attention again.
#include "../../../cpu/local/tile.h"
#include "plan.h"

namespace elsa::neighborhood_attention::ELSA_CAPABILITY {
namespace {

using namespace cpu::ELSA_CAPABILITY;

// The attention of a tile, strip by strip, [y][vector][tap][lane].
template <typename T>
class Attention {
 public:
  Attention(const cpu::LocalPlan& plan, const LocalShape& shape, const BiasView& bias)
      : shape_(shape), products_(plan, shape.channels), bias_(plan, shape, bias), attn_(tap_numbers<T>(plan)) {}

  void take(const LocalWork<T>& work, const MapView& key, int64_t head) {
    products_.take(work, key, head * shape_.channels);
    bias_.read(work.sample, head, work.tile, work.vectors, T(log2_e));
  }

  template <typename Between = Nothing>
  T* compute(const LocalWork<T>& work, const cpu::Strip& strip, const MapView& query, int64_t head,
             Between&& between = {}) {
    products_.compute(work, strip, query, head * shape_.channels, attn_, between);
    const T scale = T(shape_.scale * log2_e);
    work.for_each_vector(strip, attn_, [&](const LaneTaps<T>& vector) { softmax_taps(vector, bias_, scale); });
    return attn_;
  }

 private:
  const LocalShape& shape_;
  Products<T> products_;
  LaneBias<T> bias_;
  Scratch<T> attn_;
};

template <typename T, int Vectors>
void forward_as(const Forward& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  const LocalShape& shape = pass.shape;
  Attention<T> attention(plan, shape, pass.bias);
  Sums<T, Vectors> sums(plan, pass.value_channels);
  for_each_unit<T>(plan, shape, first_unit, last_unit, {.products = true, .sums = true},
                   [&](const auto& work, int64_t head, auto& ahead) {
                     ahead.add(pass.query, shape.channels);
                     ahead.add(pass.key, shape.channels);
                     ahead.add(pass.value, pass.value_channels);
                     ahead.add(pass.out, pass.value_channels);
                     const int64_t channel = head * pass.value_channels;
                     attention.take(work, pass.key, head);
                     sums.take(work, pass.value, channel);
                     work.for_each_strip([&](const cpu::Strip& strip) {
                       sums.gather(work, strip, attention.compute(work, strip, pass.query, head, ahead), pass.out,
                                   channel, T(1), ahead);
                     });
                   });
}

template <typename T, int Vectors>
void backward_as(const Backward& pass, const cpu::LocalPlan& plan, int64_t phase, int64_t first, int64_t last) {
  const LocalShape& shape = pass.shape;
  const int64_t channels = shape.channels, value_channels = pass.value_channels;
  const bool needs_logits = pass.grad_query.data || pass.sum_key.data || pass.partial_bias;
  Attention<T> attention(plan, shape, pass.bias);
  Products<T> products(plan, needs_logits ? value_channels : 0);
  Sums<T, Vectors> gathered(plan, pass.grad_query.data ? channels : 0),
      scattered(plan, pass.sum_key.data ? channels : 0);
  Sums<T, Vectors> value_sums(plan, pass.sum_value.data ? value_channels : 0);
  LaneBias<T> bias(plan, shape, pass.bias);
  Scratch<T> taps_of_tile(needs_logits ? tap_numbers<T>(plan) : 0);
  T* const grad = taps_of_tile;
  const auto add = [&](const LocalWork<T>& work, int64_t head, int64_t number) {
    const int64_t channel = head * channels, value_channel = head * value_channels;
    const T scale = T(shape.scale);
    attention.take(work, pass.key, head);
    products.take(work, pass.value, value_channel);
    gathered.take(work, pass.key, channel);
    scattered.begin(work);
    value_sums.begin(work);
    if (pass.partial_bias) bias.clear(work.vectors);
    work.for_each_strip([&](const cpu::Strip& strip) {
      T* attn = attention.compute(work, strip, pass.query, head);
      value_sums.scatter(work, strip, attn, pass.grad, value_channel, T(1));
      if (!needs_logits) return;
      products.compute(work, strip, pass.grad, value_channel, grad);
      softmax_backward(work, strip, attn, grad);
      if (pass.partial_bias) {
        work.for_each_vector(strip, grad, [&](const LaneTaps<T>& vector) { add_bias_gradient(vector, bias); });
      }
      gathered.gather(work, strip, grad, pass.grad_query, channel, scale);
      scattered.scatter(work, strip, grad, pass.query, channel, scale);
    });
    scattered.finish(work, pass.sum_key, channel);
    value_sums.finish(work, pass.sum_value, value_channel);
    if (pass.partial_bias) {
      bias.add_to(static_cast<T*>(pass.partial_bias) + number * pass.bias.head_size(shape), work.tile, work.vectors);
    }
  };
  for_each_unit_of_chunks<T>(plan, shape, pass.chunks, phase, first, last, add);
}

void forward(const Forward& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  const auto forward = [&](auto zero) {
    using T = decltype(zero);
    choose_vectors<T>(pass.value_channels,
                      [&](auto vectors) { forward_as<T, vectors.value>(pass, plan, first_unit, last_unit); });
  };
  pass.query.dtype == DType::float64 ? forward(double()) : forward(float());
}

void backward(const Backward& pass, const cpu::LocalPlan& plan, int64_t phase, int64_t first, int64_t last) {
  const auto backward = [&](auto zero) {
    using T = decltype(zero);
    choose_vectors<T>(pass.shape.channels > pass.value_channels ? pass.shape.channels : pass.value_channels,
                      [&](auto vectors) { backward_as<T, vectors.value>(pass, plan, phase, first, last); });
  };
  pass.query.dtype == DType::float64 ? backward(double()) : backward(float());
}

}  // namespace

const VectorKernels kernels = {forward, backward};

}  // namespace elsa::neighborhood_attention::ELSA_CAPABILITY
