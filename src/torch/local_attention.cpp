#include "local_attention.h"

namespace elsa {
namespace {

Border checked_border(const std::string& name) {
  const std::optional<Border> border = border_named(name);
  check(border.has_value(), R"(border must be "zeros", "mask", "circular" or "shift", got ")", name, '"');
  return *border;
}

}  // namespace

int64_t of_axis(const char* name, const Sizes& option, int axis) {
  check(option.size() == 1 || option.size() == 2, name, " must be one number or two, got ", option);
  return option[option.size() == 2 ? axis : 0];
}

Neighbourhood checked_axis(const NeighbourhoodOptions& options, int axis, int64_t length) {
  const int64_t K = of_axis("kernel_size", options.kernel_size, axis), d = of_axis("dilation", options.dilation, axis);
  const int64_t w = of_axis("window_stride", options.window_stride, axis);
  const int64_t causal = of_axis("causal", options.causal, axis);
  const Border border = checked_border(options.border);
  check(K > 0 && K <= INT32_MAX, "kernel_size must be from 1 to 2147483647, got ", options.kernel_size);
  check(d > 0, "dilation must be positive, got ", options.dilation);
  check(w > 0 && w <= K, "window_stride must be from 1 to kernel_size = ", options.kernel_size, ", got ",
        options.window_stride);
  check(causal == 0 || causal == 1, "causal must be 0 or 1, got ", options.causal);
  const bool shifts = border == Border::shift;
  check(shifts || w == 1, "window_stride ", options.window_stride, R"( needs border "shift", got ")", options.border,
        '"');
  check(shifts || causal == 0, R"(causal needs border "shift", got ")", options.border, '"');
  if (shifts && product({K, d}) > length) {
    const auto reach = [&](int k) {
      return product({of_axis("kernel_size", options.kernel_size, k), of_axis("dilation", options.dilation, k)});
    };
    check(false, R"(border "shift" needs kernel_size · dilation = )", Sizes{reach(0), reach(1)},
          " to fit in the map, got ", axis == 0 ? "height " : "width ", length);
  }
  return {K, dilation_within(d, length, border), 1, border, w, causal != 0};
}

LocalShape checked_local_shape(const Tensor& query, const Tensor& key, const LocalOptions& options) {
  check_dtype("query", query);
  check(query.dim() == 4, "query must have 4 dimensions (B, C, H, W), got ", query.dim());
  check(query.size(2) > 0 && query.size(3) > 0, "query must have at least one row and one column, got ", sizes(query));
  check_like("key", key, "query", query);
  check_sizes("key", key, sizes(query));
  check(options.heads > 0, "heads must be positive, got ", options.heads);
  check(query.size(1) % options.heads == 0, "query has ", query.size(1), " channels, not a multiple of the ",
        options.heads, " heads");
  const LocalShape shape{query.size(0),
                         options.heads,
                         query.size(1) / options.heads,
                         query.size(2),
                         query.size(3),
                         checked_axis(options.around, 0, query.size(2)),
                         checked_axis(options.around, 1, query.size(3)),
                         options.scale};
  const int64_t taps = product({shape.heads, shape.y.kernel_size, shape.x.kernel_size, 4});
  check(taps <= INT32_MAX, "kernel_size ", options.around.kernel_size, " has too many taps for ", options.heads,
        " heads");
  return shape;
}

Bias::Bias(const OptionalTensor& bias, const LocalShape& shape, const Tensor& query) {
  if (!bias) return;
  const Sizes taps{shape.heads, shape.taps()};
  const Sizes relative{shape.heads, 2 * shape.y.kernel_size - 1, 2 * shape.x.kernel_size - 1};
  const auto per_sample = [&](Sizes size) {
    size.insert(size.begin(), shape.batch);
    return size;
  };
  const Sizes size = sizes(*bias);
  const bool is_relative = size == relative || size == per_sample(relative);
  check(is_relative || size == taps || size == per_sample(taps), "bias must have shape (heads, K²) = ", taps,
        " or (heads, 2K−1, 2K−1) = ", relative, ", or one per sample, got ", size);
  if (bias->scalar_type() == ScalarType::Float && query.element_size() == 2) {
    check_memory("bias", *bias);
    check_device("bias", *bias, "query", query);
  } else {
    check_like("bias", *bias, "query", query);
  }
  tensor = torch::stable::contiguous(*bias);
  const bool shared = size == relative || size == taps;
  view = {tensor->data_ptr(), kernel_dtype(*tensor), shared ? 0 : tensor->stride(0), is_relative};
}

MapGradient::MapGradient(bool needed, const Tensor& map) : map_(map) {
  if (!needed) return;
  sum_ = torch::stable::empty(sizes(map), accumulation_dtype(map), std::nullopt, map.device(), std::nullopt,
                              torch::headeronly::MemoryFormat::ChannelsLast);
  torch::stable::zero_(*sum_);
}

MapView MapGradient::view() const { return sum_ ? map_view(*sum_) : MapView{}; }

Tensor MapGradient::finish() const {
  if (!sum_) return no_gradient(map_);
  const bool same_format = !map_.is_contiguous() && map_.stride(1) == 1;
  if (same_format && sum_->scalar_type() == map_.scalar_type()) return *sum_;
  Tensor gradient = empty_in_format(map_, sizes(map_));
  torch::stable::copy_(gradient, *sum_);
  return gradient;
}

BiasGradient::BiasGradient(bool needed, const Bias& bias, const LocalShape& shape, int64_t chunks)
    : bias_(bias), batch_(shape.batch) {
  if (!needed) return;
  const Sizes size{shape.batch, chunks, shape.heads, bias.view.head_size(shape)};
  partial_ = torch::stable::new_zeros(*bias.tensor, size, accumulation_dtype(*bias.tensor));
}

Tensor BiasGradient::finish(const Tensor& otherwise) const {
  if (!partial_) return no_gradient(otherwise);
  if (batch_ == 0) return torch::stable::new_zeros(*bias_.tensor, sizes(*bias_.tensor));
  const int64_t sums = bias_.view.batch_stride != 0 ? batch_ : 1;
  return torch::stable::to(sum_partials(*partial_, sums, sizes(*bias_.tensor)), bias_.tensor->scalar_type());
}

}  // namespace elsa
