// The launches of ghost_head's kernels with a compile-time K.
#pragma once

#include "../../../cuda/dispatch.cuh"
#include "gather.cuh"
#include "gather_planes.cuh"
#include "reduce.cuh"
#include "reduce_planes.cuh"

namespace elsa::ghost_head {

using namespace cuda;

// The slices of a head.
inline int head_slices(const Shape& shape) { return int(divide_up(shape.head_channels(), slice_channels)); }

template <typename Traits>
void launch_gather(const Gather& op, void* stream) {
  using T = typename Traits::T;
  const StripTiling tiling(int(op.out.height), int(op.out.width), int(op.shape.x.dilation), Traits::strips,
                           strips_across(op.source));
  const int batch = int(op.shape.batch), head_channels = int(op.shape.head_channels()), slices = head_slices(op.shape);
  const GatherArguments<T> arguments{Map<T>(op.out),
                                     Map<const T>(op.source),
                                     Map<const T>(op.attn),
                                     Matrix<T>(op.mul),
                                     Matrix<T>(op.add),
                                     tiling,
                                     batch,
                                     head_channels,
                                     slices};
  const int64_t all_slices = op.shape.heads * slices;
  launch(gather_kernel<Traits>,
         grid_of<Traits>(blocks_for_tiles(all_slices, batch * int64_t(tiling.tiles)), all_slices), stream, arguments);
}

template <typename Traits>
void launch_gather_planes(const Gather& op, void* stream) {
  using T = typename Traits::T;
  const PlaneTiling tiling(int(op.out.height), int(op.out.width), int(op.shape.x.dilation));
  const int batch = int(op.shape.batch), head_channels = int(op.shape.head_channels()), slices = head_slices(op.shape);
  const GatherPlanesArguments<T> arguments{
      Map<T>(op.out), Map<const T>(op.source), Map<const T>(op.attn), Matrix<T>(op.add), tiling, batch, head_channels,
      slices};
  const int64_t all_slices = op.shape.heads * slices;
  launch(gather_planes_kernel<Traits>,
         grid_of<Traits>(blocks_for_tiles(all_slices, batch * int64_t(tiling.tiles)), all_slices), stream, arguments);
}

// Without ghost_mul, 16-bit types go to the tensor cores.
template <typename T, int K, bool Vector>
void gather_as(const Gather& op, void* stream) {
  choose(op.adjoint, [&](auto adjoint) {
    choose(op.mul.data != nullptr, [&](auto mul) {
      choose(op.add.data != nullptr, [&](auto add) {
        if constexpr (gather_planes_take<T, K> && !mul.value) {
          launch_gather_planes<GatherPlanesTraits<T, K, Vector, add.value, adjoint.value>>(op, stream);
        } else {
          launch_gather<GatherTraits<T, K, Vector, mul.value, add.value, adjoint.value>>(op, stream);
        }
      });
    });
  });
}

template <int K>
void gather_sized(const Gather& op, void* stream) {
  choose_narrow(op.out.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t head_channels = op.shape.head_channels();
    choose(vectors_fit<T>(op.source, head_channels) && vectors_fit<T>(op.out, head_channels),
           [&](auto vector) { gather_as<T, K, vector.value>(op, stream); });
  });
}

template <typename T>
ReduceArguments<T> reduce_arguments(const Reduce& op, const StripTiling& tiling) {
  return {Map<const T>(op.value),
          Map<const T>(op.attn),
          Map<const T>(op.grad),
          Map<T>(op.grad_attn),
          Matrix<T>(op.mul),
          static_cast<float*>(op.partial_mul),
          static_cast<float*>(op.partial_add),
          tiling,
          op.shape.channels,
          int(op.samples_of_a_sum()),
          int(op.chunks),
          int(op.shape.head_channels()),
          head_slices(op.shape)};
}

template <typename Traits>
void launch_reduce(const Reduce& op, void* stream) {
  const StripTiling tiling(int(op.grad.height), int(op.grad.width), int(op.shape.x.dilation), Traits::strips,
                           strips_across(op.value));
  const int64_t slices_apart = Traits::Want::attn ? 1 : head_slices(op.shape);
  launch(reduce_kernel<Traits>,
         grid_of<Traits>(op.sums * op.chunks, op.shape.heads * slices_apart, Traits::row_parts * Traits::tap_parts),
         stream, reduce_arguments<typename Traits::T>(op, tiling));
}

template <typename Traits>
void launch_reduce_planes(const Reduce& op, void* stream) {
  using T = typename Traits::T;
  const PlaneTiling tiling(int(op.grad.height), int(op.grad.width), int(op.shape.x.dilation));
  const ReducePlanesArguments<T> arguments{Map<const T>(op.value),
                                           Map<const T>(op.grad),
                                           Map<T>(op.grad_attn),
                                           static_cast<float*>(op.partial_add),
                                           tiling,
                                           op.shape.channels,
                                           int(op.samples_of_a_sum()),
                                           int(op.chunks),
                                           int(op.shape.head_channels()),
                                           head_slices(op.shape)};
  launch(reduce_planes_kernel<Traits>,
         grid_of<Traits>(op.sums * op.chunks, op.shape.heads * int64_t(head_slices(op.shape))), stream, arguments);
}

// What is wanted goes to up to three launches: to the tensor cores what they take; the gradient of attn, where a head
// is one slice together with those of the matrices; and these apart.
template <typename T, int K, bool Vector>
void reduce_as(const Reduce& op, void* stream) {
  constexpr bool planes = reduce_planes_take<T, K>;
  const bool one_slice = head_slices(op.shape) == 1, mul = op.partial_mul != nullptr;
  bool attn = op.grad_attn.data != nullptr, add = op.partial_add != nullptr;
  if constexpr (planes) {
    const bool planes_attn = attn && one_slice && !op.mul.data, planes_add = add && !mul;
    choose(planes_attn, [&](auto with_attn) {
      choose(planes_add, [&](auto with_add) {
        if constexpr (with_attn.value || with_add.value) {
          launch_reduce_planes<ReducePlanesTraits<T, K, Vector, with_attn.value, with_add.value>>(op, stream);
        }
      });
    });
    attn &= !planes_attn, add &= !planes_add;
  }
  choose(op.mul.data != nullptr, [&](auto scaled) {
    choose(mul && one_slice, [&](auto with_mul) {
      choose(add && one_slice, [&](auto with_add) {
        using Want = Wanted<true, scaled.value, with_mul.value && scaled.value, with_add.value>;
        if constexpr (!planes || Want::mul || !Want::add) {
          if (attn) launch_reduce<ReduceTraits<T, K, Vector, Want>>(op, stream);
        }
      });
    });
  });
  const bool apart = !attn || !one_slice;
  choose(mul, [&](auto with_mul) {
    choose(add, [&](auto with_add) {
      using Want = Wanted<false, false, with_mul.value, with_add.value>;
      if constexpr (Want::mul || (Want::add && !planes)) {
        if (apart) launch_reduce<ReduceTraits<T, K, Vector, Want>>(op, stream);
      }
    });
  });
}

template <int K>
void reduce_sized(const Reduce& op, void* stream) {
  choose_narrow(op.value.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int64_t head_channels = op.shape.head_channels();
    choose(vectors_fit<T>(op.value, head_channels) && vectors_fit<T>(op.grad, head_channels),
           [&](auto vector) { reduce_as<T, K, vector.value>(op, stream); });
  });
}

}  // namespace elsa::ghost_head
