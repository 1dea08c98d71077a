// CPU kernels of neighborhood_logits, compiled once per instruction set.
#include "../../../cpu/local/tile.h"
#include "plan.h"

namespace elsa::neighborhood_logits::ELSA_CAPABILITY {
namespace {

using namespace cpu::ELSA_CAPABILITY;

// −∞ for the rows of taps that do not count, which no product was written for.
template <typename T>
void fill_uncounted_rows(const LaneTaps<T>& taps, int64_t rows) {
  const int64_t size = taps.columns * lanes<T>;
  for (int64_t i = 0; i < rows; ++i) {
    if (i >= taps.output.begin && i < taps.output.end) continue;
    for (int64_t k = 0; k < size; ++k) taps.numbers[i * size + k] = -T(INFINITY);
  }
}

template <typename T>
void forward_as(const Forward& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  const LocalShape& shape = pass.shape;
  const int64_t taps = shape.taps();
  Products<T> products(plan, shape.channels);
  LaneBias<T> bias(plan, shape, pass.bias);
  Scratch<T> taps_of_tile(tap_numbers<T>(plan));
  T* const logits = taps_of_tile;
  for_each_unit<T>(plan, shape, first_unit, last_unit, {.products = true, .sums = false},
                   [&](const auto& work, int64_t head, auto& ahead) {
                     ahead.add(pass.query, shape.channels);
                     ahead.add(pass.key, shape.channels);
                     ahead.add(pass.logits, taps);
                     products.take(work, pass.key, head * shape.channels);
                     bias.read(work.sample, head, work.tile, work.vectors, T(1));
                     work.for_each_strip([&](const cpu::Strip& strip) {
                       products.compute(work, strip, pass.query, head * shape.channels, logits, ahead);
                       work.for_each_vector(strip, logits, [&](const LaneTaps<T>& vector) {
                         scale_taps(vector, bias, T(shape.scale));
                         fill_uncounted_rows(vector, plan.y.kernel_size);
                       });
                       unpack_lanes<T>(residue_of(pass.logits, plan, work.unit), work.sample, head * taps, taps,
                                       work.tile, strip, work.vectors, logits);
                     });
                   });
}

template <typename T, int Vectors>
void backward_as(const Backward& pass, const cpu::LocalPlan& plan, int64_t phase, int64_t first, int64_t last) {
  const LocalShape& shape = pass.shape;
  const int64_t taps = shape.taps(), channels = shape.channels;
  Sums<T, Vectors> gathered(plan, pass.grad_query.data ? channels : 0),
      scattered(plan, pass.sum_key.data ? channels : 0);
  LaneBias<T> bias(plan, shape, pass.bias);
  Scratch<T> taps_of_tile(tap_numbers<T>(plan));
  T* const grad = taps_of_tile;
  const auto add = [&](const LocalWork<T>& work, int64_t head, int64_t number) {
    const int64_t channel = head * channels;
    const T scale = T(shape.scale);
    gathered.take(work, pass.key, channel);
    scattered.begin(work);
    if (pass.partial_bias) bias.clear(work.vectors);
    work.for_each_strip([&](const cpu::Strip& strip) {
      pack_lanes<T>(residue_of(pass.grad, plan, work.unit), work.sample, head * taps, taps, work.tile, strip,
                    work.vectors, grad);
      clear_uncounted(work, strip, grad);
      if (pass.partial_bias) {
        work.for_each_vector(strip, grad, [&](const LaneTaps<T>& vector) { add_bias_gradient(vector, bias); });
      }
      gathered.gather(work, strip, grad, pass.grad_query, channel, scale);
      scattered.scatter(work, strip, grad, pass.query, channel, scale);
    });
    scattered.finish(work, pass.sum_key, channel);
    if (pass.partial_bias) {
      bias.add_to(static_cast<T*>(pass.partial_bias) + number * pass.bias.head_size(shape), work.tile, work.vectors);
    }
  };
  for_each_unit_of_chunks<T>(plan, shape, pass.chunks, phase, first, last, add);
}

void forward(const Forward& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  pass.query.dtype == DType::float64 ? forward_as<double>(pass, plan, first_unit, last_unit)
                                     : forward_as<float>(pass, plan, first_unit, last_unit);
}

void backward(const Backward& pass, const cpu::LocalPlan& plan, int64_t phase, int64_t first, int64_t last) {
  const auto backward = [&](auto zero) {
    using T = decltype(zero);
    choose_vectors<T>(pass.shape.channels,
                      [&](auto vectors) { backward_as<T, vectors.value>(pass, plan, phase, first, last); });
  };
  pass.query.dtype == DType::float64 ? backward(double()) : backward(float());
}

}  // namespace

const VectorKernels kernels = {forward, backward};

}  // namespace elsa::neighborhood_logits::ELSA_CAPABILITY
