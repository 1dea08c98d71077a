// CPU kernels of hadamard_attention, compiled once per instruction set: the scaled and pooled product of query and key,
// the grouped convolution, GELU, the projection and softmax.
#include "elsa/hadamard_attention.h"

#include "gelu.h"
#include "grouped_conv.h"
#include "projection.h"
#include "softmax.h"

namespace elsa::cpu::ELSA_CAPABILITY {
namespace {

template <typename T>
void product_as(const HadamardProduct& op, int64_t first_unit, int64_t last_unit) {
  const HadamardShape& shape = op.shape;
  const int64_t channels = shape.channels, columns = shape.out_width(), stride = shape.stride;
  const T scale = T(op.scale / double(stride * stride));
  Scratch<T> query(columns * stride * channels), key(columns * stride * channels), sum(columns * channels);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t sample = unit / shape.out_height(), row = unit % shape.out_height();
    zero<T>(sum, columns * channels);
    for (int64_t y = row * stride; y < (row + 1) * stride; ++y) {
      const Window window{{y, 1}, {0, columns * stride}};
      pack_window<T>(op.query, sample, 0, channels, channels, window, query);
      pack_window<T>(op.key, sample, 0, channels, channels, window, key);
      for (int64_t x = 0; x < columns * stride; ++x) {
        for (int64_t c = 0; c < channels; ++c) {
          sum[x / stride * channels + c] += query[x * channels + c] * key[x * channels + c];
        }
      }
    }
    for (int64_t k = 0; k < columns * channels; ++k) {
      sum[k] *= scale;
    }
    unpack_row<T>(op.product, sample, 0, channels, channels, row, 0, columns, sum);
  }
}

template <typename T>
void product_backward_as(const HadamardProductBackward& op, int64_t first_unit, int64_t last_unit) {
  const HadamardShape& shape = op.shape;
  const int64_t channels = shape.channels, stride = shape.stride, size = shape.width * channels;
  const T scale = T(op.scale / double(stride * stride));
  Scratch<T> query(size), key(size), grad(size);
  for (int64_t unit = first_unit; unit < last_unit; ++unit) {
    const int64_t sample = unit / shape.height, row = unit % shape.height;
    const Window window{{row, 1}, {0, shape.width}};
    pack_window<T>(op.query, sample, 0, channels, channels, window, query);
    pack_window<T>(op.key, sample, 0, channels, channels, window, key);
    // Rows and columns that the pooling dropped lie outside the gradient's map: they get zeros.
    pack_window<T>(op.grad, sample, 0, channels, channels, {{row / stride, 1}, {0, shape.width}}, grad);
    for (int64_t x = 0; x < shape.width; ++x) {
      for (int64_t c = 0; c < channels; ++c) {
        const T g = grad[x / stride * channels + c] * scale, q = query[x * channels + c];
        query[x * channels + c] = g * key[x * channels + c];
        key[x * channels + c] = g * q;
      }
    }
    unpack_row<T>(op.grad_query, sample, 0, channels, channels, row, 0, shape.width, query);
    unpack_row<T>(op.grad_key, sample, 0, channels, channels, row, 0, shape.width, key);
  }
}

void product(const HadamardProduct& op, int64_t first_unit, int64_t last_unit) {
  op.query.dtype == DType::float64 ? product_as<double>(op, first_unit, last_unit)
                                   : product_as<float>(op, first_unit, last_unit);
}

void product_backward(const HadamardProductBackward& op, int64_t first_unit, int64_t last_unit) {
  op.query.dtype == DType::float64 ? product_backward_as<double>(op, first_unit, last_unit)
                                   : product_backward_as<float>(op, first_unit, last_unit);
}

void conv(const GroupedConv& op, int64_t first_unit, int64_t last_unit) {
  op.in.dtype == DType::float64 ? conv_as<double>(op, first_unit, last_unit)
                                : conv_as<float>(op, first_unit, last_unit);
}

void conv_weight_gradient(const GroupedConvWeightGradient& op, int64_t first_unit, int64_t last_unit) {
  op.conv.in.dtype == DType::float64 ? conv_weight_gradient_as<double>(op, first_unit, last_unit)
                                     : conv_weight_gradient_as<float>(op, first_unit, last_unit);
}

void projection(const Projection& op, int64_t first_unit, int64_t last_unit) {
  op.dtype == DType::float64 ? projection_as<double>(op, first_unit, last_unit)
                             : projection_as<float>(op, first_unit, last_unit);
}

void projection_weight_gradient(const ProjectionWeightGradient& op, int64_t first_unit, int64_t last_unit) {
  op.projection.dtype == DType::float64 ? projection_weight_gradient_as<double>(op, first_unit, last_unit)
                                        : projection_weight_gradient_as<float>(op, first_unit, last_unit);
}

void gelu(const Gelu& op, int64_t first_unit, int64_t last_unit) {
  op.dtype == DType::float64 ? gelu_as<double>(op, first_unit, last_unit) : gelu_as<float>(op, first_unit, last_unit);
}

void softmax(const Softmax& op, int64_t first_unit, int64_t last_unit) {
  op.out.dtype == DType::float64 ? softmax_as<double>(op, first_unit, last_unit)
                                 : softmax_as<float>(op, first_unit, last_unit);
}

}  // namespace

const HadamardKernels hadamard_attention = {
    2 * ELSA_VECTOR_BYTES, conv, conv_weight_gradient, projection, projection_weight_gradient, gelu, softmax, product,
    product_backward};

}  // namespace elsa::cpu::ELSA_CAPABILITY
