// What the ops of local attention check and allocate alike.
#pragma once

#include <vector>

#include "../core/local_attention.h"
#include "sums.h"

namespace elsa {

// The options of the schemas.
struct LocalOptions {
  int64_t heads;
  std::vector<int64_t> kernel_size, dilation;
  double scale;
  std::string border;
  std::vector<int64_t> window_stride;
  std::vector<int64_t> causal;  // 0 or 1
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
