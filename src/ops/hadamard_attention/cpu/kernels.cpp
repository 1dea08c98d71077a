// CPU kernels of hadamard_attention, compiled once per instruction set. A tile goes through the whole chain in scratch,
// a band of rows at a time.
#include "../../../cpu/gelu.h"
#include "../../../cpu/matmul.h"
#include "../../../cpu/softmax.h"
#include "grouped_conv.h"
#include "product.h"
#include "weights.h"

namespace elsa::hadamard_attention::ELSA_CAPABILITY {
namespace {

// Some rows of a tile. In scratch their pixels lie one after another.
struct Band {
  const Tile& tile;
  int64_t first_row, rows;  // of the map

  int64_t pixels() const { return rows * tile.columns; }
};

template <typename Work>
void for_each_band(const Plan& plan, const Tile& tile, const Work& work) {
  for (int64_t row = 0; row < tile.rows; row += plan.band) {
    const int64_t left = tile.rows - row;
    work(Band{tile, tile.first_row + row, plan.band < left ? plan.band : left});
  }
}

// The grouped convolution of a tile's window.
template <typename T>
class Convolution {
 public:
  explicit Convolution(const Plan& plan)
      : plan_(plan), kernels_(conv_kernels<T>(plan)), spread_(plan.spread_size()), row_(plan.row_size()) {}

  // work(slice, row of the band, the row's sums) for every slice and row.
  template <typename Work>
  void rows(ConvSource<T>& source, const Band& band, const T* weight, const T* bias, const Work& work) {
    for (int64_t slice = 0; slice < plan_.slices(); ++slice) {
      choose_slice(source, slice);
      for (int64_t y = 0; y < band.rows; ++y) {
        kernels_.row(source, slice, band.first_row + y, strips_of(band.tile), weight + slice * slice_size(),
                     bias + slice * slice_width<T>, row_);
        work(slice, y, static_cast<const T*>(row_));
      }
    }
  }

  // Add the gradient of the weights to `sum`, unless it is null. work(slice, row of the band, to) writes the gradient
  // of the output.
  template <typename Work>
  void gradient(ConvSource<T>& source, const Band& band, T* sum, const Work& work) {
    const int64_t columns = band.tile.columns;
    zero(row_ + columns * slice_width<T>, (strips_of(band.tile) * strip_pixels - columns) * slice_width<T>);
    for (int64_t slice = 0; slice < plan_.slices(); ++slice) {
      if (sum != nullptr) choose_slice(source, slice);
      for (int64_t y = 0; y < band.rows; ++y) {
        work(slice, y, static_cast<T*>(row_));
        if (sum == nullptr) continue;
        kernels_.gradient(source, slice, band.first_row + y, strips_of(band.tile), row_, sum + slice * slice_size());
      }
    }
  }

 private:
  int64_t slice_size() const { return plan_.conv_size() / plan_.slices(); }

  void choose_slice(ConvSource<T>& source, int64_t slice) {
    source.spread = source.window + slice * source.slice_step;
    if (plan_.spread_size() > 0) {
      source.spread_slice(slice, spread_);
      source.spread = spread_;
    }
  }

  const Plan& plan_;
  const ConvKernels<T> kernels_;
  Scratch<T> spread_, row_;
};

// logits = bias + weight · hidden for `pixels` pixels, or the gradient of hidden from that of the logits.
template <typename T>
void project(const Plan& plan, int64_t pixels, const T* hidden, const T* panels, const T* bias, T* logits) {
  const int64_t terms = plan.shape.terms(), outputs = plan.shape.outputs();
  for (int64_t group = 0; group < plan.shape.proj_groups; ++group) {
    for (int64_t first = 0; first < outputs; first += plan.slice) {
      multiply<T>(pixels, terms, {hidden + group * terms, plan.hidden_stride(), 1}, panels, plan.slice, bias, 0,
                  logits + group * outputs + first, plan.logits_stride());
      panels += terms * plan.slice, bias += plan.slice;
    }
  }
}

template <typename T>
void project_backward(const Plan& plan, int64_t pixels, const T* grad_logits, const T* panels, T* grad_hidden) {
  const int64_t terms = plan.shape.terms(), outputs = plan.shape.outputs();
  for (int64_t group = 0; group < plan.shape.proj_groups; ++group) {
    for (int64_t first = 0; first < terms; first += plan.slice, panels += outputs * plan.slice) {
      multiply<T>(pixels, outputs, {grad_logits + group * outputs, plan.logits_stride(), 1}, panels, plan.slice,
                  nullptr, 0, grad_hidden + group * terms + first, plan.hidden_stride());
    }
  }
}

// Add grad_logitsᵀ · hidden to `sum`.
template <typename T>
void project_gradient(const Plan& plan, int64_t pixels, const T* hidden, const T* grad_logits, T* sum) {
  const int64_t terms = plan.shape.terms(), outputs = plan.shape.outputs(), step = plan.padded(terms);
  for (int64_t group = 0; group < plan.shape.proj_groups; ++group, sum += outputs * step) {
    for (int64_t first = 0; first < terms; first += plan.slice) {
      multiply<T>(outputs, pixels, {grad_logits + group * outputs, 1, plan.logits_stride()},
                  hidden + group * terms + first, plan.hidden_stride(), sum + first, step, sum + first, step);
    }
  }
}

// A row of a tile's pixels in the accumulation type: the map's own or a copy in `scratch`.
template <typename T>
PixelMaps<const T> pixel_row(const MapView& map, const Tile& tile, int64_t row, int64_t channels, T* scratch) {
  if (lies_as_scratch<T>(map)) {
    return {map.at<const T>(tile.sample, 0, row, tile.first_column), map.column_stride};
  }
  pack_window<T>(map, tile.sample, 0, channels, channels, {{row, 1}, {tile.first_column, tile.columns}}, scratch);
  return {scratch, channels};
}

template <typename T>
void forward_as(const Call& op, int64_t first_unit, int64_t last_unit) {
  const Plan& plan = op.plan;
  const PackedWeights<T> packed(op);
  const VectorRow<T> taps(plan.shape.taps());
  const SoftmaxKernels<T> softmax = softmax_kernels<T>(taps);
  const int64_t channels = plan.shape.attn_channels();
  const bool direct = lies_as_scratch<T>(op.attn);
  Convolution<T> convolution(plan);
  Scratch<T> window(plan.window_size()), hidden(plan.hidden_size()), logits(plan.logits_size());
  Scratch<T> row(direct ? 0 : plan.tiling.columns * channels);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const Tile tile(plan.tiling, unit);
    const Window around = window_of(plan, tile);
    pack_product<T>(op, tile.sample, around, window);
    ConvSource<T> source(plan, around, window);
    for_each_band(plan, tile, [&](const Band& band) {
      convolution.rows(source, band, packed.conv, packed.conv_bias, [&](int64_t slice, int64_t y, const T* sums) {
        T* to = hidden + y * tile.columns * plan.hidden_stride() + slice * slice_width<T>;
        for (int64_t x = 0; x < tile.columns; ++x, to += plan.hidden_stride(), sums += slice_width<T>) {
          for (int v = 0; v < 2; ++v) store(to + v * lanes<T>, gelu<T>(load(sums + v * lanes<T>)));
        }
      });
      project<T>(plan, band.pixels(), hidden, packed.proj, packed.proj_bias, logits);
      for (int64_t y = 0; y < band.rows; ++y) {
        const MapView& attn = op.attn;
        T* to = direct ? attn.at<T>(tile.sample, 0, band.first_row + y, tile.first_column) : row;
        const T* from = logits + y * tile.columns * plan.logits_stride();
        softmax.forward(taps, tile.columns, plan.shape.heads, {from, plan.logits_stride()},
                        {to, direct ? attn.column_stride : channels});
        if (!direct) {
          unpack_row<T>(attn, tile.sample, 0, channels, channels, band.first_row + y, tile.first_column, tile.columns,
                        row);
        }
      }
    });
  }
}

// Add the sums of a row's pixels to `sum`, in whole vectors. A row is summed up by itself first: so the rounding errors
// of a map grow with its columns and its rows, and not with its pixels.
template <typename T>
void add_row(const T* row, int64_t columns, int64_t stride, int64_t channels, T* sum) {
  for (int64_t k = 0; k < channels; k += lanes<T>) {
    Vector<T> row_sum = {};
    for (int64_t x = 0; x < columns; ++x) row_sum += load(row + x * stride + k);
    store(sum + k, load(sum + k) + row_sum);
  }
}

// Everything between the inputs and attn is computed again: attn is all that the forward keeps. Sums that nobody asked
// for stay zero.
template <typename T>
void backward_as(const Call& op, int64_t first_chunk, int64_t last_chunk) {
  const Plan& plan = op.plan;
  const PackedWeights<T> packed(op);
  const VectorRow<T> taps(plan.shape.taps());
  const SoftmaxKernels<T> softmax = softmax_kernels<T>(taps);
  const int64_t channels = plan.shape.attn_channels(), hidden_size = plan.hidden_size();
  Convolution<T> convolution(plan);
  // The gradient of the projection's weights reads whole slices of `hidden`, beyond its last channel too.
  Scratch<T> window(plan.window_size()), hidden(hidden_size + plan.slice), slope(hidden_size), grad_hidden(hidden_size);
  Scratch<T> grad_logits(plan.logits_size());
  Scratch<T> attn_row(plan.tiling.columns * channels), grad_row(plan.tiling.columns * channels);
  for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
    const PartialSums<T> sums(op, chunk);
    zero(sums.conv, plan.partial_size());
    const int64_t last = (chunk + 1) * plan.tiles() / plan.chunks;
    for (int64_t unit = chunk * plan.tiles() / plan.chunks; unit < last; ++unit) {
      const Tile tile(plan.tiling, unit);
      const Window around = window_of(plan, tile);
      pack_product<T>(op, tile.sample, around, window);
      ConvSource<T> source(plan, around, window);
      for_each_band(plan, tile, [&](const Band& band) {
        convolution.rows(source, band, packed.conv, packed.conv_bias, [&](int64_t slice, int64_t y, const T* row) {
          int64_t to = y * tile.columns * plan.hidden_stride() + slice * slice_width<T>;
          for (int64_t x = 0; x < tile.columns; ++x, to += plan.hidden_stride(), row += slice_width<T>) {
            for (int v = 0; v < 2; ++v) {
              Vector<T> value, derivative;
              gelu_and_slope<T>(load(row + v * lanes<T>), value, derivative);
              store(hidden + to + v * lanes<T>, value);
              store(slope + to + v * lanes<T>, derivative);
            }
          }
        });
        for (int64_t y = 0; y < band.rows; ++y) {
          const auto attn = pixel_row<T>(op.attn, tile, band.first_row + y, channels, attn_row);
          const auto grad = pixel_row<T>(op.grad, tile, band.first_row + y, channels, grad_row);
          T* to = grad_logits + y * tile.columns * plan.logits_stride();
          softmax.backward(taps, tile.columns, plan.shape.heads, attn, grad, {to, plan.logits_stride()});
          if (op.grad_proj_bias != nullptr)
            add_row<T>(to, tile.columns, plan.logits_stride(), channels, sums.proj_bias);
        }
        if (op.grad_proj_weight != nullptr) {
          project_gradient<T>(plan, band.pixels(), hidden, grad_logits, sums.proj);
        }
        if (!op.needs_conv() && !op.needs_maps()) return;
        project_backward<T>(plan, band.pixels(), grad_logits, packed.proj_adjoint, grad_hidden);
        convolution.gradient(
            source, band, op.grad_conv_weight != nullptr ? sums.conv : nullptr, [&](int64_t slice, int64_t y, T* row) {
              const int64_t first = slice * slice_width<T>, left = plan.shape.channels - first;
              const int64_t from = y * tile.columns * plan.hidden_stride() + first;
              for (int64_t x = 0; x < tile.columns; ++x) {
                for (int v = 0; v < 2; ++v) {
                  const int64_t at = from + x * plan.hidden_stride() + v * lanes<T>;
                  store(row + x * slice_width<T> + v * lanes<T>, load(grad_hidden + at) * load(slope + at));
                }
              }
              if (op.grad_conv_bias != nullptr) {
                add_row<T>(row, tile.columns, slice_width<T>, plan.slice, sums.conv_bias + first);
              }
              if (!op.needs_maps()) return;
              unpack_row<T>(op.grad_conv, tile.sample, first, left < plan.slice ? left : plan.slice, plan.slice,
                            band.first_row + y, tile.first_column, tile.columns, row);
            });
      });
    }
  }
}

template <typename T>
void adjoint_as(const Call& op, int64_t first_unit, int64_t last_unit) {
  const Plan& plan = op.plan;
  const PackedWeights<T> packed(op);
  Convolution<T> convolution(plan);
  Scratch<T> window(plan.window_size()), no_bias(plan.conv_bias_size());
  zero<T>(no_bias, plan.conv_bias_size());
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const Tile tile(plan.tiling, unit);
    const Window around = window_of(plan, tile);
    ConvSource<T> source(plan, around, window);
    for (int64_t slice = 0; slice < plan.slices(); ++slice) {
      const int64_t first = slice * plan.slice, left = plan.shape.channels - first;
      pack_window<T>(op.grad_conv, tile.sample, first, left < plan.slice ? left : plan.slice, plan.slice, around,
                     window + slice * source.slice_step);
    }
    const Band whole{tile, tile.first_row, tile.rows};
    with_type<T>(op.query.dtype, [&](auto element) {
      convolution.rows(source, whole, packed.conv_adjoint, no_bias, [&](int64_t slice, int64_t y, const T* grad) {
        product_row_backward<T, decltype(element)>(op, tile.sample, slice, tile.first_row + y, tile.first_column,
                                                   tile.columns, grad);
      });
    });
  }
}

bool is_double(const Call& op) { return op.query.dtype == DType::float64; }

void pack(const Call& op, int64_t first_unit, int64_t last_unit) {
  is_double(op) ? pack_as<double>(op, first_unit, last_unit) : pack_as<float>(op, first_unit, last_unit);
}

void forward(const Call& op, int64_t first_unit, int64_t last_unit) {
  is_double(op) ? forward_as<double>(op, first_unit, last_unit) : forward_as<float>(op, first_unit, last_unit);
}

void backward(const Call& op, int64_t first_unit, int64_t last_unit) {
  is_double(op) ? backward_as<double>(op, first_unit, last_unit) : backward_as<float>(op, first_unit, last_unit);
}

void adjoint(const Call& op, int64_t first_unit, int64_t last_unit) {
  is_double(op) ? adjoint_as<double>(op, first_unit, last_unit) : adjoint_as<float>(op, first_unit, last_unit);
}

void sum_partial(const Call& op, int64_t first_unit, int64_t last_unit) {
  is_double(op) ? sum_partial_as<double>(op, first_unit, last_unit) : sum_partial_as<float>(op, first_unit, last_unit);
}

}  // namespace

const VectorKernels kernels = {ELSA_VECTOR_BYTES, pack, forward, backward, adjoint, sum_partial};

}  // namespace elsa::hadamard_attention::ELSA_CAPABILITY
