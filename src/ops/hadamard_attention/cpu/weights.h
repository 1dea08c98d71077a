// The weights of hadamard_attention in the order in which its loops read them, and the sums of their partial gradients.
#pragma once

#include "grouped_conv.h"

namespace elsa::hadamard_attention::ELSA_CAPABILITY {
namespace {

template <typename T>
struct PackedWeights {
  T *conv, *conv_bias;
  T *proj, *proj_bias;             // in the forward
  T *conv_adjoint, *proj_adjoint;  // in the backward

  explicit PackedWeights(const Call& op) : conv(static_cast<T*>(op.packed)), conv_bias(conv + op.plan.conv_size()) {
    proj = conv_adjoint = conv_bias + op.plan.conv_bias_size();
    proj_bias = proj + op.plan.proj_size();
    proj_adjoint = conv_adjoint + op.plan.conv_size();
  }
};

// The parts of a chunk's partial sums.
template <typename T>
struct PartialSums {
  T *conv, *conv_bias, *proj, *proj_bias;

  PartialSums(const Call& op, int64_t chunk)
      : conv(static_cast<T*>(op.partial) + chunk * op.plan.partial_size()),
        conv_bias(conv + op.plan.conv_size()),
        proj(conv_bias + op.plan.conv_bias_size()),
        proj_bias(proj + op.plan.proj_gradient_size()) {}
};

// work(packed index, index in conv_weight) for every weight of a slice, [K][group_width][K][slice]; the latter is
// negative for padding. The adjoint's weights are transposed and turned around.
template <typename T, typename Work>
ELSA_INLINE void for_each_weight(const Plan& plan, int64_t slice, bool adjoint, const Work& work) {
  const int64_t size = plan.shape.neighbourhood.kernel_size, taps = plan.shape.taps(),
                group_width = plan.shape.group_width();
  for (int64_t row = 0; row < size * group_width * size; ++row) {
    const int64_t i = row / (group_width * size), k = row / size % group_width, j = row % size, tap = i * size + j;
    for (int64_t l = 0; l < slice_width<T>; ++l) {
      const int64_t channel = slice * slice_width<T> + l, first = channel / group_width * group_width;
      const int64_t index = adjoint ? ((first + k) * group_width + channel - first) * taps + taps - 1 - tap
                                    : (channel * group_width + k) * taps + tap;
      work(row * slice_width<T> + l, channel < plan.shape.channels ? index : -1);
    }
  }
}

template <typename T>
void pack_conv(const Call& op, int64_t slice) {
  const Plan& plan = op.plan;
  const PackedWeights<T> packed(op);
  const T* weight = static_cast<const T*>(op.conv_weight);
  const int64_t first = slice * (plan.conv_size() / plan.slices());
  for_each_weight<T>(plan, slice, false,
                     [&](int64_t at, int64_t from) { packed.conv[first + at] = from < 0 ? T(0) : weight[from]; });
  if (op.backward) {
    for_each_weight<T>(plan, slice, true, [&](int64_t at, int64_t from) {
      packed.conv_adjoint[first + at] = from < 0 ? T(0) : weight[from];
    });
  }
  for (int64_t channel = slice * plan.slice; channel < (slice + 1) * plan.slice; ++channel) {
    packed.conv_bias[channel] =
        op.conv_bias != nullptr && channel < plan.shape.channels ? static_cast<const T*>(op.conv_bias)[channel] : T(0);
  }
}

// Outputs of the projection or, in the backward, its terms, a slice of them at a time: [terms or outputs][slice].
template <typename T>
void pack_panel(const Call& op, int64_t panel) {
  const Plan& plan = op.plan;
  const PackedWeights<T> packed(op);
  const T *weight = static_cast<const T*>(op.proj_weight), *bias = static_cast<const T*>(op.proj_bias);
  const int64_t terms = plan.shape.terms(), outputs = plan.shape.outputs(),
                panels = op.panels() / plan.shape.proj_groups;
  const int64_t group = panel / panels, first = panel % panels * plan.slice;
  const int64_t rows = op.backward ? outputs : terms, columns = op.backward ? terms : outputs;
  const int64_t row_step = op.backward ? terms : 1, column_step = op.backward ? 1 : terms;
  T* to = (op.backward ? packed.proj_adjoint : packed.proj) + panel * rows * plan.slice;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t l = 0; l < slice_width<T>; ++l) {
      const int64_t from = group * outputs * terms + row * row_step + (first + l) * column_step;
      *to++ = first + l < columns ? weight[from] : T(0);
    }
  }
  if (!op.backward) {
    for (int64_t l = 0; l < slice_width<T>; ++l) {
      const bool inside = bias != nullptr && first + l < outputs;
      packed.proj_bias[panel * plan.slice + l] = inside ? bias[group * outputs + first + l] : T(0);
    }
  }
}

// Units are slices of the convolution, then panels of the projection.
template <typename T>
void pack_as(const Call& op, int64_t first_unit, int64_t last_unit) {
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    unit < op.plan.slices() ? pack_conv<T>(op, unit) : pack_panel<T>(op, unit - op.plan.slices());
  }
}

// The sums over all chunks of `count` numbers, `from` being where the first chunk has them.
template <typename T>
void sum_chunks(const Plan& plan, const T* from, int64_t count, T* sum) {
  std::memcpy(sum, from, std::size_t(count) * sizeof(T));
  for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) {
    from += plan.partial_size();
    for (int64_t k = 0; k < count; ++k) sum[k] += from[k];
  }
}

// Units are slices of the convolution, then outputs of the projection. What nobody asked for is left out.
template <typename T>
void sum_partial_as(const Call& op, int64_t first_unit, int64_t last_unit) {
  const Plan& plan = op.plan;
  const PartialSums<T> partial(op, 0);
  const int64_t conv_size = plan.conv_size() / plan.slices(), terms = plan.shape.terms();
  Scratch<T> sum(conv_size > plan.padded(terms) ? conv_size : plan.padded(terms));
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    if (unit < plan.slices()) {
      if (op.grad_conv_weight != nullptr) {
        sum_chunks<T>(plan, partial.conv + unit * conv_size, conv_size, sum);
        for_each_weight<T>(plan, unit, false, [&](int64_t at, int64_t to) {
          if (to >= 0) static_cast<T*>(op.grad_conv_weight)[to] = sum[at];
        });
      }
      if (op.grad_conv_bias != nullptr) {
        const int64_t first = unit * plan.slice, left = plan.shape.channels - first;
        sum_chunks<T>(plan, partial.conv_bias + first, left < plan.slice ? left : plan.slice,
                      static_cast<T*>(op.grad_conv_bias) + first);
      }
    } else {
      const int64_t output = unit - plan.slices();
      if (op.grad_proj_weight != nullptr) {
        sum_chunks<T>(plan, partial.proj + output * plan.padded(terms), terms,
                      static_cast<T*>(op.grad_proj_weight) + output * terms);
      }
      if (op.grad_proj_bias != nullptr) {
        sum_chunks<T>(plan, partial.proj_bias + output, 1, static_cast<T*>(op.grad_proj_bias) + output);
      }
    }
  }
}

}  // namespace
}  // namespace elsa::hadamard_attention::ELSA_CAPABILITY
