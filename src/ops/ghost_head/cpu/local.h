// ghost_head without matrices or strides at every border: what is left are sums and products of local attention.
#pragma once

#include "../../../cpu/local/tile.h"
#include "plan.h"

namespace elsa::ghost_head::ELSA_CAPABILITY {
namespace {

using namespace cpu::ELSA_CAPABILITY;

// The taps of a strip, [y][vector][tap][lane].
template <typename T>
class LocalTaps {
 public:
  LocalTaps(const Shape& shape, const cpu::LocalPlan& plan)
      : taps_(shape.taps()), plan_(plan), numbers_(tap_numbers<T>(plan)) {}

  // The attention of a strip, zero where a tap does not count.
  const T* read(const LocalWork<T>& work, const cpu::Strip& strip, const MapView& attn, int64_t head) {
    pack_lanes<T>(residue_of(attn, plan_, work.unit), work.sample, head * taps_, taps_, work.tile, strip, work.vectors,
                  numbers_);
    if (plan_.x.causal) clear_uncounted<T>(work, strip, numbers_);
    return numbers_;
  }

  // Room for the gradient of it: rows of taps that do not count are not written to.
  T* begin() {
    if (plan_.y.causal) zero<T>(numbers_, tap_numbers<T>(plan_));
    return numbers_;
  }
  void write(const LocalWork<T>& work, const cpu::Strip& strip, const MapView& grad_attn, int64_t head) {
    if (plan_.x.causal) clear_uncounted<T>(work, strip, numbers_);
    unpack_lanes<T>(residue_of(grad_attn, plan_, work.unit), work.sample, head * taps_, taps_, work.tile, strip,
                    work.vectors, numbers_);
  }

 private:
  int64_t taps_;
  const cpu::LocalPlan& plan_;
  Scratch<T> numbers_;
};

template <typename T, int Vectors>
void gather_local(const Gather& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  const int64_t channels = pass.shape.head_channels();
  const LocalShape shape = local_shape(pass.shape);
  LocalTaps<T> attn(pass.shape, plan);
  Sums<T, Vectors> sums(plan, channels);
  for_each_unit<T>(plan, shape, first_unit, last_unit, {.products = false, .sums = true},
                   [&](const auto& work, int64_t head, auto& ahead) {
                     ahead.add(pass.source, channels);
                     ahead.add(pass.attn, shape.taps());
                     ahead.add(pass.out, channels);
                     sums.take(work, pass.source, head * channels);
                     work.for_each_strip([&](const cpu::Strip& strip) {
                       sums.gather(work, strip, attn.read(work, strip, pass.attn, head), pass.out, head * channels,
                                   T(1), ahead);
                     });
                   });
}

template <typename T>
void products_local(const Reduce& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  const int64_t channels = pass.shape.head_channels();
  const LocalShape shape = local_shape(pass.shape);
  LocalTaps<T> grad_attn(pass.shape, plan);
  Products<T> products(plan, channels);
  for_each_unit<T>(plan, shape, first_unit, last_unit, {.products = true, .sums = false},
                   [&](const auto& work, int64_t head, auto& ahead) {
                     ahead.add(pass.value, channels);
                     ahead.add(pass.grad, channels);
                     ahead.add(pass.grad_attn, shape.taps());
                     products.take(work, pass.value, head * channels);
                     work.for_each_strip([&](const cpu::Strip& strip) {
                       products.compute(work, strip, pass.grad, head * channels, grad_attn.begin(), ahead);
                       grad_attn.write(work, strip, pass.grad_attn, head);
                     });
                   });
}

template <typename T, int Vectors>
void scatter_local(const Gather& pass, const cpu::LocalPlan& plan, int64_t chunks, int64_t phase, int64_t first,
                   int64_t last) {
  const int64_t channels = pass.shape.head_channels();
  const LocalShape shape = local_shape(pass.shape);
  LocalTaps<T> attn(pass.shape, plan);
  Sums<T, Vectors> sums(plan, channels);
  for_each_unit_of_chunks<T>(plan, shape, chunks, phase, first, last, [&](const auto& work, int64_t head, int64_t) {
    sums.begin(work);
    work.for_each_strip([&](const cpu::Strip& strip) {
      sums.scatter(work, strip, attn.read(work, strip, pass.attn, head), pass.source, head * channels, T(1));
    });
    sums.finish(work, pass.out, head * channels);
  });
}

}  // namespace
}  // namespace elsa::ghost_head::ELSA_CAPABILITY
