// CPU kernels of ghost_head, compiled once per instruction set.
//
// A tile's source pixels, with a border of zeros, and its attention are first copied into small channels-last scratch
// in the accumulation type: whatever the tensors' layout and dtype, the inner loops see one, and need no bounds checks.
// They hold several pixels × up to two vectors of channels in registers and walk the taps.
#include "elsa/ghost_head.h"

#include <type_traits>

#include "ghost_head_gather.h"
#include "ghost_head_reduce.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

// Pass `choose(flag, f)` on as f(std::true_type) or f(std::false_type): run-time flags become template arguments.
template <typename Function>
ELSA_INLINE void choose(bool flag, const Function& function) {
  flag ? function(std::true_type()) : function(std::false_type());
}

template <typename T>
void gather_as(const GhostHeadGather& op, int64_t first_unit, int64_t last_unit) {
  choose(op.shape.head_channels() > lanes<T>, [&](auto wide) {
    choose(op.mul.data != nullptr, [&](auto mul) {
      choose(op.add.data != nullptr,
             [&](auto add) { gather<T, wide ? 2 : 1, mul.value, add.value>(op, first_unit, last_unit); });
    });
  });
}

template <typename T>
void reduce_as(const GhostHeadReduce& op, int64_t first_unit, int64_t last_unit) {
  const bool wants_attn = op.grad_attn.data != nullptr;
  choose(op.shape.head_channels() > lanes<T>, [&](auto wide) {
    choose(wants_attn, [&](auto attn) {
      choose(wants_attn && op.mul.data != nullptr, [&](auto scaled) {
        choose(op.partial_mul != nullptr, [&](auto mul) {
          choose(op.partial_add != nullptr, [&](auto add) {
            using Want = Wanted<attn.value, scaled.value && attn.value, mul.value, add.value>;
            reduce<T, wide ? 2 : 1, Want>(op, first_unit, last_unit);
          });
        });
      });
    });
  });
}

void gather_any(const GhostHeadGather& op, int64_t first_unit, int64_t last_unit) {
  op.out.dtype == DType::float64 ? gather_as<double>(op, first_unit, last_unit)
                                 : gather_as<float>(op, first_unit, last_unit);
}

void reduce_any(const GhostHeadReduce& op, int64_t first_unit, int64_t last_unit) {
  op.value.dtype == DType::float64 ? reduce_as<double>(op, first_unit, last_unit)
                                   : reduce_as<float>(op, first_unit, last_unit);
}

}  // namespace

const GhostHeadKernels ghost_head = {ELSA_VECTOR_BYTES, gather_pixels_at_once, gather_any, reduce_any};

}  // namespace elsa::cpu::ELSA_CAPABILITY
