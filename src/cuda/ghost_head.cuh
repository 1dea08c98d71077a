// The launches of ghost_head's kernels with a compile-time K.
#pragma once

#include <algorithm>

#include "dispatch.cuh"
#include "ghost_head_gather.cuh"
#include "ghost_head_reduce.cuh"

namespace elsa::cuda {

template <int K>
void ghost_head_gather_with(const GhostHeadGather& op, void* stream) {
  const int64_t head_channels = op.shape.head_channels();
  const Tiling tiling(int(op.out.height), int(op.out.width), int(op.shape.dilation), gather_slots<K>,
                      slots_across(op.source));
  const int64_t head_blocks = (head_channels + slot_channels - 1) / slot_channels;
  const int64_t rows = op.shape.heads * head_blocks;
  constexpr int64_t enough_blocks = 8;  // on a multiprocessor, over all heads
  const int64_t columns =
      std::clamp<int64_t>(enough_blocks * multiprocessors() / rows, 1, op.shape.batch * int64_t(tiling.tiles));
  choose_narrow(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const GatherArguments<T> arguments{Map<T>(op.out),      Map<const T>(op.source), Map<const T>(op.attn),
                                       Matrix<T>(op.mul),   Matrix<T>(op.add),       tiling,
                                       int(op.shape.batch), int(head_channels),      int(head_blocks)};
    choose(vectors_fit<T>(op.source, head_channels) && vectors_fit<T>(op.out, head_channels), [&](auto vector) {
      choose(op.mul.data != nullptr, [&](auto mul) {
        choose(op.add.data != nullptr, [&](auto add) {
          choose(op.adjoint, [&](auto adjoint) {
            launch("ghost_head", ghost_head_gather<T, K, vector.value, mul.value, add.value, adjoint.value>,
                   {columns, rows, 1, gather_threads<K>, gather_shared_bytes<T, K, mul.value, add.value>}, stream,
                   arguments);
          });
        });
      });
    });
  });
}

template <int K, typename T, bool Vector, typename Want>
void launch_reduce(const GhostHeadReduce& op, const ReduceArguments<T>& arguments, void* stream) {
  const int64_t rows = op.shape.heads * (Want::attn ? 1 : arguments.head_blocks);
  launch("ghost_head_backward", ghost_head_reduce<T, K, Vector, Want>,
         {op.samples * op.chunks, rows, reduce_parts<K> * reduce_tap_parts<T, K, Want>, 32 * reduce_rows<K>,
          reduce_shared_bytes<T, K, Vector, Want>},
         stream, arguments);
}

template <int K>
void ghost_head_reduce_with(const GhostHeadReduce& op, void* stream) {
  const int64_t head_channels = op.shape.head_channels();
  const int64_t head_blocks = (head_channels + slot_channels - 1) / slot_channels;
  const bool attn = op.grad_attn.data != nullptr, mul = op.partial_mul != nullptr, add = op.partial_add != nullptr;
  const bool together = head_blocks == 1;
  choose_narrow(op.value.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const ReduceArguments<T> arguments{
        Map<const T>(op.value),
        Map<const T>(op.attn),
        Map<const T>(op.grad),
        Map<T>(op.grad_attn),
        Matrix<T>(op.mul),
        static_cast<float*>(op.partial_mul),
        static_cast<float*>(op.partial_add),
        Tiling(int(op.grad.height), int(op.grad.width), int(op.shape.dilation), reduce_slots, slots_across(op.value)),
        op.shape.channels,
        int(op.shape.batch / op.samples),
        int(op.chunks),
        int(head_channels),
        int(head_blocks)};
    choose(vectors_fit<T>(op.value, head_channels) && vectors_fit<T>(op.grad, head_channels), [&](auto vector) {
      choose(op.mul.data != nullptr, [&](auto scaled) {
        choose(mul && together, [&](auto with_mul) {
          choose(add && together, [&](auto with_add) {
            using Want = Wanted<true, scaled.value, with_mul.value && scaled.value, with_add.value>;
            if (attn) launch_reduce<K, T, vector.value, Want>(op, arguments, stream);
          });
        });
      });
      const bool apart = !attn || !together;
      choose(mul, [&](auto with_mul) {
        choose(add, [&](auto with_add) {
          using Want = Wanted<false, false, with_mul.value, with_add.value>;
          if constexpr (Want::mul || Want::add) {
            if (apart) launch_reduce<K, T, vector.value, Want>(op, arguments, stream);
          }
        });
      });
    });
  });
}

}  // namespace elsa::cuda
