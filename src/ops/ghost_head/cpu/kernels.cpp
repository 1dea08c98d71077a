// CPU kernels of ghost_head, compiled once per instruction set.
//
// A tile's source pixels, with a border of zeros, and its attention are first copied into small channels-last scratch
// in the accumulation type: whatever the tensors' layout and dtype, the inner loops see one, and need no bounds checks.
// They hold several pixels × up to two vectors of channels in registers and walk the taps.
#include "../../../core/choose.h"
#include "gather.h"
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

}  // namespace

const VectorKernels kernels = {ELSA_VECTOR_BYTES, gather_pixels_at_once, gather, reduce};

}  // namespace elsa::ghost_head::ELSA_CAPABILITY
