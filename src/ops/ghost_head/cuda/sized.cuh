// The launches of ghost_head's kernels with a compile-time K.
#pragma once

#include <algorithm>

#include "../../../cuda/dispatch.cuh"
#include "gather.cuh"
#include "gather_planes.cuh"
#include "reduce_planes.cuh"
#include "reduce.cuh"

namespace elsa::ghost_head {

using namespace cuda;

// Blocks for `tiles` tiles of each of `rows` rows of a grid: as many as there is work, or as fill the device.
inline int64_t tile_blocks(int64_t rows, int64_t tiles) {
  constexpr int64_t enough_blocks = 8;  // on a multiprocessor, over all rows
  return std::clamp<int64_t>(enough_blocks * multiprocessors() / rows, 1, tiles);
}

template <typename T, int K, bool Vector, bool Adjoint>
void launch_gather(const Gather& op, void* stream) {
  const int height = int(op.out.height), width = int(op.out.width), dilation = int(op.shape.neighbourhood.dilation);
  const int batch = int(op.shape.batch), head_channels = int(op.shape.head_channels());
  const int head_blocks = (head_channels + slot_channels - 1) / slot_channels;
  const int64_t rows = op.shape.heads * head_blocks;
  choose(op.mul.data != nullptr, [&](auto mul) {
    choose(op.add.data != nullptr, [&](auto add) {
      if constexpr (planes_take<T, K> && !mul.value) {
        const PlanesArguments<T> arguments{Map<T>(op.out),
                                           Map<const T>(op.source),
                                           Map<const T>(op.attn),
                                           Matrix<T>(op.add),
                                           Lattice(height, width, dilation),
                                           batch,
                                           head_channels,
                                           head_blocks};
        launch("ghost_head", gather_planes_kernel<T, K, Vector, add.value, Adjoint>,
               {tile_blocks(rows, batch * int64_t(arguments.lattice.tiles)), rows, 1, planes_threads,
                planes_shared_bytes<T, K, add.value>},
               stream, arguments);
      } else {
        const GatherArguments<T> arguments{Map<T>(op.out),
                                           Map<const T>(op.source),
                                           Map<const T>(op.attn),
                                           Matrix<T>(op.mul),
                                           Matrix<T>(op.add),
                                           Tiling(height, width, dilation, gather_slots<K>, slots_across(op.source)),
                                           batch,
                                           head_channels,
                                           head_blocks};
        launch("ghost_head", gather_kernel<T, K, Vector, mul.value, add.value, Adjoint>,
               {tile_blocks(rows, batch * int64_t(arguments.tiling.tiles)), rows, 1, gather_threads<K>,
                gather_shared_floats<K, mul.value, add.value>() * sizeof(float)},
               stream, arguments);
      }
    });
  });
}

template <int K>
void gather_sized(const Gather& op, void* stream) {
  choose_narrow(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t head_channels = op.shape.head_channels();
    choose(vectors_fit<T>(op.source, head_channels) && vectors_fit<T>(op.out, head_channels), [&](auto vector) {
      choose(op.adjoint, [&](auto adjoint) { launch_gather<T, K, vector.value, adjoint.value>(op, stream); });
    });
  });
}

template <int K, typename T, bool Vector, typename Want>
void launch_reduce(const Reduce& op, const ReduceArguments<T>& arguments, void* stream) {
  const int64_t rows = op.shape.heads * (Want::attn ? 1 : arguments.head_blocks);
  launch("ghost_head_backward", reduce_kernel<T, K, Vector, Want>,
         {op.sums * op.chunks, rows, reduce_parts<K> * reduce_tap_parts<T, K, Want>, 32 * reduce_rows<K>,
          reduce_shared_floats<K, Want>() * sizeof(float)},
         stream, arguments);
}

template <typename T, int K, bool Vector>
void launch_planes_reduce(const Reduce& op, bool with_attn, bool with_add, int head_blocks, void* stream) {
  const PlanesReduceArguments<T> arguments{Map<const T>(op.value),
                                           Map<const T>(op.grad),
                                           Map<T>(op.grad_attn),
                                           static_cast<float*>(op.partial_add),
                                           Lattice(int(op.grad.height), int(op.grad.width), int(op.shape.neighbourhood.dilation)),
                                           op.shape.channels,
                                           int(op.shape.batch / op.sums),
                                           int(op.chunks),
                                           int(op.shape.head_channels()),
                                           head_blocks};
  choose(with_attn, [&](auto attn) {
    choose(with_add, [&](auto add) {
      if constexpr (attn.value || add.value) {
        launch(
            "ghost_head_backward", reduce_planes_kernel<T, K, Vector, attn.value, add.value>,
            {op.sums * op.chunks, op.shape.heads * head_blocks, 1, planes_threads, planes_reduce_shared_bytes<T, K>},
            stream, arguments);
      }
    });
  });
}

template <int K>
void reduce_sized(const Reduce& op, void* stream) {
  const int64_t head_channels = op.shape.head_channels();
  const int head_blocks = int((head_channels + slot_channels - 1) / slot_channels);
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
        Tiling(int(op.grad.height), int(op.grad.width), int(op.shape.neighbourhood.dilation), reduce_slots, slots_across(op.value)),
        op.shape.channels,
        int(op.shape.batch / op.sums),
        int(op.chunks),
        int(head_channels),
        head_blocks};
    choose(vectors_fit<T>(op.value, head_channels) && vectors_fit<T>(op.grad, head_channels), [&](auto vector) {
      bool attn = op.grad_attn.data != nullptr, mul = op.partial_mul != nullptr, add = op.partial_add != nullptr;
      constexpr bool planes = planes_reduce_take<T, K>;
      if constexpr (planes) {
        const bool planes_attn = attn && together && !op.mul.data, planes_add = add && !mul;
        launch_planes_reduce<T, K, vector.value>(op, planes_attn, planes_add, head_blocks, stream);
        attn &= !planes_attn, add &= !planes_add;
      }
      choose(op.mul.data != nullptr, [&](auto scaled) {
        choose(mul && together, [&](auto with_mul) {
          choose(add && together, [&](auto with_add) {
            using Want = Wanted<true, scaled.value, with_mul.value && scaled.value, with_add.value>;
            if constexpr (!planes || Want::mul || !Want::add) {
              if (attn) launch_reduce<K, T, vector.value, Want>(op, arguments, stream);
            }
          });
        });
      });
      const bool apart = !attn || !together;
      choose(mul, [&](auto with_mul) {
        choose(add, [&](auto with_add) {
          using Want = Wanted<false, false, with_mul.value, with_add.value>;
          if constexpr (Want::mul || (Want::add && !planes)) {
            if (apart) launch_reduce<K, T, vector.value, Want>(op, arguments, stream);
          }
        });
      });
    });
  });
}

}  // namespace elsa::ghost_head
