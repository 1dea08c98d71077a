// What the ops of local attention check and allocate alike.
#pragma once

#include <vector>

#include "../core/local_attention.h"
#include "sums.h"

namespace elsa {

// The options of the schemas that say what an output looks at: a number for both axes, or one for each.
struct NeighbourhoodOptions {
  const Sizes &kernel_size, &dilation;
  const std::string& border;
  const Sizes &window_stride, &causal;  // causal: 0 or 1
};

// The option called `name` along an axis.
int64_t of_axis(const char* name, const Sizes& option, int axis);

// What outputs look at along an axis of `length`, with a stride of 1.
Neighbourhood checked_axis(const NeighbourhoodOptions& options, int axis, int64_t length);

struct LocalOptions {
  int64_t heads;
  double scale;
  NeighbourhoodOptions around;
};

// The shape of a call, whose query and key were checked.
LocalShape checked_local_shape(const Tensor& query, const Tensor& key, const LocalOptions& options);

// The bias of a call as the kernels read it; the tensor keeps the view's memory alive.
struct Bias {
  OptionalTensor tensor;
  BiasView view{nullptr, DType::float32, 0, false};

  Bias(const OptionalTensor& bias, const LocalShape& shape, const Tensor& query);
};

// The gradient of a map, as a sum that kernels add to: in the accumulation type, the channels of a pixel side by side.
class MapGradient {
 public:
  MapGradient(bool needed, const Tensor& map);

  MapView view() const;   // absent where it is not needed
  Tensor finish() const;  // in the map's dtype and memory format

 private:
  const Tensor& map_;
  OptionalTensor sum_;
};

// Room for the partial sums of the bias's gradient, [batch][chunks][heads][head_size], and their sum.
class BiasGradient {
 public:
  BiasGradient(bool needed, const Bias& bias, const LocalShape& shape, int64_t chunks);

  void* data() const { return partial_ ? partial_->data_ptr() : nullptr; }
  Tensor finish(const Tensor& otherwise) const;

 private:
  const Bias& bias_;
  int64_t batch_;
  OptionalTensor partial_;
};

}  // namespace elsa
