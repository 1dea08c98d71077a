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
    if (plan_.x.causal) clear_apart<T>(work, strip, numbers_);
    return numbers_;
  }

  // Room for the gradient of it: rows of taps that do not count are not written to.
  T* begin() {
    if (plan_.y.causal) zero<T>(numbers_, tap_numbers<T>(plan_));
    return numbers_;
  }
  void write(const LocalWork<T>& work, const cpu::Strip& strip, const MapView& grad_attn, int64_t head) {
    if (plan_.x.causal) clear_apart<T>(work, strip, numbers_);
    unpack_lanes<T>(residue_of(grad_attn, plan_, work.unit), work.sample, head * taps_, taps_, work.tile, strip,
                    work.vectors, numbers_);
  }

 private:
  int64_t taps_;
  const cpu::LocalPlan& plan_;
  Scratch<T> numbers_;
};

// Call f(work, head) for units that are a head of a tile of a sample.
template <typename T, typename Function>
void for_each_local_work(const Shape& shape, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit,
                         const Function& f) {
  const LocalShape local = local_shape(shape);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t index = unit / shape.heads;
    const LocalWork<T> work(plan, local, index % plan.units(), index / plan.units());
    if (!work.is_empty()) f(work, unit % shape.heads);
  }
}

template <typename T, int Vectors>
void gather_local(const Gather& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  const int64_t channels = pass.shape.head_channels();
  LocalTaps<T> attn(pass.shape, plan);
  Sums<T, Vectors> sums(plan, channels);
  for_each_local_work<T>(pass.shape, plan, first_unit, last_unit, [&](const LocalWork<T>& work, int64_t head) {
    sums.take(work, pass.source, head * channels);
    work.for_each_strip([&](const cpu::Strip& strip) {
      sums.gather(work, strip, attn.read(work, strip, pass.attn, head), pass.out, head * channels, T(1));
    });
  });
}

template <typename T>
void products_local(const Reduce& pass, const cpu::LocalPlan& plan, int64_t first_unit, int64_t last_unit) {
  const int64_t channels = pass.shape.head_channels();
  LocalTaps<T> grad_attn(pass.shape, plan);
  Products<T> products(plan, channels);
  for_each_local_work<T>(pass.shape, plan, first_unit, last_unit, [&](const LocalWork<T>& work, int64_t head) {
    products.take(work, pass.value, head * channels);
    work.for_each_strip([&](const cpu::Strip& strip) {
      products.compute(work, strip, pass.grad, head * channels, grad_attn.begin());
      grad_attn.write(work, strip, pass.grad_attn, head);
    });
  });
}

// Units are a head of a chunk of a sample.
template <typename T, int Vectors>
void scatter_local(const Gather& pass, const cpu::LocalPlan& plan, int64_t chunks, int64_t phase, int64_t first,
                   int64_t last) {
  const Shape& shape = pass.shape;
  const LocalShape local = local_shape(shape);
  LocalTaps<T> attn(shape, plan);
  Sums<T, Vectors> sums(plan, shape.head_channels());
  for (int64_t group = first; group < last; ++group) {
    const int64_t head = group % shape.heads, chunk = group / shape.heads % chunks;
    const int64_t sample = group / shape.heads / chunks, channel = head * shape.head_channels();
    const int64_t end = (chunk + 1) * plan.units() / chunks;
    for (int64_t unit = chunk * plan.units() / chunks; unit < end; ++unit) {
      if (!plan.in_phase(unit, phase)) continue;
      const LocalWork<T> work(plan, local, unit, sample);
      if (work.is_empty()) continue;
      sums.begin(work);
      work.for_each_strip([&](const cpu::Strip& strip) {
        sums.scatter(work, strip, attn.read(work, strip, pass.attn, head), pass.source, channel, T(1));
      });
      sums.finish(work, pass.out, channel);
    }
  }
}

}  // namespace
}  // namespace elsa::ghost_head::ELSA_CAPABILITY
