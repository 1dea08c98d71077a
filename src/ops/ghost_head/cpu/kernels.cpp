// CPU kernels of ghost_head, compiled once per instruction set.
//
// A tile's source pixels, with a border of zeros, and its attention are first copied into small channels-last scratch
// in the accumulation type: whatever the tensors' layout and dtype, the inner loops see one, and need no bounds checks.
// They hold several pixels × up to two vectors of channels in registers and walk the taps.
#include "../../../core/choose.h"
#include "any.h"
#include "gather.h"
#include "local.h"
#include "reduce.h"

namespace elsa::ghost_head::ELSA_CAPABILITY {
namespace {

template <typename T>
void gather_as(const Gather& pass, const Plan& plan, int64_t first_unit, int64_t last_unit) {
  choose(plan.slice > lanes<T>, [&](auto wide) {
    choose(pass.mul.data != nullptr, [&](auto mul) {
      choose(pass.add.data != nullptr,
             [&](auto add) { gather<T, wide ? 2 : 1, mul.value, add.value>(pass, plan, first_unit, last_unit); });
    });
  });
}

template <typename T>
void reduce_as(const Reduce& pass, const Plan& plan, int64_t first_unit, int64_t last_unit) {
  const bool wants_attn = pass.grad_attn.data != nullptr;
  choose(plan.slice > lanes<T>, [&](auto wide) {
    choose(wants_attn, [&](auto attn) {
      choose(wants_attn && pass.mul.data != nullptr, [&](auto scaled) {
        choose(pass.partial_mul != nullptr, [&](auto mul) {
          choose(pass.partial_add != nullptr, [&](auto add) {
            using Want = Wanted<attn.value, scaled.value && attn.value, mul.value, add.value>;
            reduce<T, wide ? 2 : 1, Want>(pass, plan, first_unit, last_unit);
          });
        });
      });
    });
  });
}

void gather(const Gather& pass, const Plan& plan, int64_t first_unit, int64_t last_unit) {
  pass.out.dtype == DType::float64 ? gather_as<double>(pass, plan, first_unit, last_unit)
                                   : gather_as<float>(pass, plan, first_unit, last_unit);
}

void reduce(const Reduce& pass, const Plan& plan, int64_t first_unit, int64_t last_unit) {
  pass.value.dtype == DType::float64 ? reduce_as<double>(pass, plan, first_unit, last_unit)
                                     : reduce_as<float>(pass, plan, first_unit, last_unit);
}

// Call f(std::integral_constant<int, vectors>(), a number of the accumulation type).
template <typename Function>
void choose_any(DType dtype, int64_t channels, const Function& f) {
  const auto with_vectors = [&](auto zero) {
    choose(channels > lanes<decltype(zero)>, [&](auto wide) { f(std::integral_constant<int, wide ? 2 : 1>(), zero); });
  };
  dtype == DType::float64 ? with_vectors(double()) : with_vectors(float());
}

void gather_local(const Gather& pass, const cpu::LocalPlan& plan, int64_t first, int64_t last) {
  choose_any(pass.source.dtype, pass.shape.head_channels(),
             [&](auto vectors, auto zero) { gather_local<decltype(zero), vectors.value>(pass, plan, first, last); });
}

void scatter_local(const Gather& pass, const cpu::LocalPlan& plan, int64_t chunks, int64_t phase, int64_t first,
                   int64_t last) {
  choose_any(pass.source.dtype, pass.shape.head_channels(), [&](auto vectors, auto zero) {
    scatter_local<decltype(zero), vectors.value>(pass, plan, chunks, phase, first, last);
  });
}

void products_local(const Reduce& pass, const cpu::LocalPlan& plan, int64_t first, int64_t last) {
  pass.value.dtype == DType::float64 ? products_local<double>(pass, plan, first, last)
                                     : products_local<float>(pass, plan, first, last);
}

void gather_any(const Gather& pass, const Neighbours& rows, const Neighbours& columns, int64_t first, int64_t last) {
  choose_any(pass.source.dtype, pass.shape.head_channels(), [&](auto vectors, auto zero) {
    using T = decltype(zero);
    choose(pass.mul.data != nullptr, [&](auto mul) {
      choose(pass.add.data != nullptr, [&](auto add) {
        choose(pass.adjoint, [&](auto adjoint) {
          gather_any<T, vectors.value, mul.value, add.value, adjoint.value>(pass, rows, columns, first, last);
        });
      });
    });
  });
}

void reduce_channels_any(const Reduce& pass, const Neighbours& rows, const Neighbours& columns, int64_t first,
                         int64_t last) {
  choose_any(pass.value.dtype, pass.shape.head_channels(), [&](auto vectors, auto zero) {
    choose(pass.mul.data != nullptr, [&](auto mul) {
      reduce_channels_any<decltype(zero), vectors.value, mul.value>(pass, rows, columns, first, last);
    });
  });
}

void reduce_pixels_any(const Reduce& pass, const Neighbours& rows, const Neighbours& columns, int64_t first,
                       int64_t last) {
  choose_any(pass.value.dtype, pass.shape.head_channels(), [&](auto vectors, auto zero) {
    choose(pass.partial_mul != nullptr, [&](auto mul) {
      choose(pass.partial_add != nullptr, [&](auto add) {
        reduce_pixels_any<decltype(zero), vectors.value, mul.value, add.value>(pass, rows, columns, first, last);
      });
    });
  });
}

}  // namespace

const VectorKernels kernels = {ELSA_VECTOR_BYTES,   gather_pixels_at_once, gather,         reduce,
                               gather_local,        scatter_local,         products_local, gather_any,
                               reduce_channels_any, reduce_pixels_any};

}  // namespace elsa::ghost_head::ELSA_CAPABILITY
