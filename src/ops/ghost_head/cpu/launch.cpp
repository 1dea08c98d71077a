// The passes of ghost_head on the CPU, in parallel.
#include "../../../cpu/local/launch.h"

#include "../kernels.h"
#include "plan.h"

namespace elsa::ghost_head {
namespace {

Plan plan_of(const Shape& shape, Pass pass, DType dtype) {
  return {shape, pass, vector_kernels().vector_bytes / size_of(accumulation(dtype))};
}

void gather_local(const Gather& pass) {
  const LocalShape shape = local_shape(pass.shape);
  const cpu::LocalPlan plan = local_plan(pass.shape);
  if (pass.adjoint) {
    const auto kernel = vector_kernels().scatter_local;
    const int64_t chunks = cpu::local_chunks(shape, plan);
    cpu::parallel_chunks(shape, plan, chunks, true, shape.channels, [&](int64_t phase, int64_t first, int64_t last) {
      kernel(pass, plan, chunks, phase, first, last);
    });
  } else {
    const auto kernel = vector_kernels().gather_local;
    cpu::parallel_units(shape, plan, shape.channels,
                        [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
  }
}

void products_local(const Reduce& pass) {
  const LocalShape shape = local_shape(pass.shape);
  const cpu::LocalPlan plan = local_plan(pass.shape);
  const auto kernel = vector_kernels().products_local;
  cpu::parallel_units(shape, plan, shape.channels,
                      [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
}

// The multiply-adds of a head of a row of results.
int64_t row_cost(const Shape& shape) { return product({shape.width, shape.taps(), shape.head_channels()}); }

void gather_any(const Gather& pass) {
  const Shape& shape = pass.shape;
  const auto neighbours = pass.adjoint ? Neighbours::of_sources : Neighbours::of_outputs;
  const Neighbours rows = neighbours(shape.y, shape.height), columns = neighbours(shape.x, shape.width);
  const auto kernel = vector_kernels().gather_any;
  parallel(shape.batch * rows.count() * shape.heads, row_cost(shape),
           [&](int64_t first, int64_t last) { kernel(pass, rows, columns, first, last); });
}

void reduce_any(const Reduce& pass) {
  const Shape& shape = pass.shape;
  const Neighbours rows = Neighbours::of_outputs(shape.y, shape.height);
  const Neighbours columns = Neighbours::of_outputs(shape.x, shape.width);
  if (pass.grad_attn.data && is_local(shape, pass.mul.data != nullptr)) {
    products_local(pass);
  } else if (pass.grad_attn.data) {
    const auto kernel = vector_kernels().reduce_channels_any;
    parallel(shape.batch * rows.count() * shape.heads, row_cost(shape),
             [&](int64_t first, int64_t last) { kernel(pass, rows, columns, first, last); });
  }
  if (pass.partial_mul || pass.partial_add) {
    const auto kernel = vector_kernels().reduce_pixels_any;
    const int64_t rows_of_a_chunk = divide_up(pass.samples_of_a_sum() * rows.count(), pass.chunks);
    parallel(pass.sums * pass.chunks * shape.heads, product({rows_of_a_chunk, row_cost(shape)}),
             [&](int64_t first, int64_t last) { kernel(pass, rows, columns, first, last); });
  }
}

void gather(const Gather& pass) {
  if (!pass.shape.square) {
    return is_local(pass.shape, pass.mul.data || pass.add.data) ? gather_local(pass) : gather_any(pass);
  }
  const Plan plan = plan_of(pass.shape, pass.adjoint ? Pass::adjoint : Pass::forward, pass.out.dtype);
  const auto kernel = vector_kernels().gather;
  parallel(pass.shape.heads * pass.shape.batch * plan.tiling.count(),
           product({plan.tiling.pixels(), pass.shape.taps(), pass.shape.head_channels()}),
           [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
}

void reduce(const Reduce& pass) {
  if (!pass.shape.square) return reduce_any(pass);
  const Plan plan = plan_of(pass.shape, Pass::reduce, pass.value.dtype);
  const auto kernel = vector_kernels().reduce;
  const int64_t pixels = pass.samples_of_a_sum() * plan.tiling.count() / pass.chunks * plan.tiling.pixels();
  parallel(pass.shape.heads * pass.sums * pass.chunks, product({pixels, pass.shape.taps(), pass.shape.head_channels()}),
           [&](int64_t first, int64_t last) { kernel(pass, plan, first, last); });
}

}  // namespace

const Kernels kernels{gather, reduce, chunks};

}  // namespace elsa::ghost_head
