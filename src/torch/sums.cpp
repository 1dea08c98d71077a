#include "sums.h"

#include <algorithm>
#include <array>

#include "parallel.h"

namespace elsa {
namespace {

template <typename T>
void add_up(const Tensor& partial, int64_t sums, Tensor& total) {
  const int64_t size = total.numel() / sums, terms = partial.numel() / total.numel();
  const T* from = static_cast<const T*>(partial.data_ptr());
  T* to = static_cast<T*>(total.data_ptr());
  parallel(total.numel(), terms, [&](int64_t first, int64_t last) {
    while (first < last) {
      const int64_t sum = first / size, stop = std::min(last, (sum + 1) * size);
      std::fill(to + first, to + stop, T(0));
      for (int64_t term = 0; term < terms; ++term) {
        const T* row = from + (sum * terms + term) * size - sum * size;
        for (int64_t i = first; i < stop; ++i) to[i] += row[i];
      }
      first = stop;
    }
  });
}

}  // namespace

Tensor sum_partials(const Tensor& partial, int64_t sums, const Sizes& size) {
  if (!partial.is_cpu()) {
    int64_t elements = 1;
    for (const int64_t extent : size) elements *= extent;
    const std::array<int64_t, 1> terms{1};
    const Tensor by_term = torch::stable::reshape(partial, {sums, partial.numel() / elements, elements / sums});
    return torch::stable::reshape(torch::stable::sum(by_term, terms), size);
  }
  Tensor total = torch::stable::new_empty(partial, size);
  partial.scalar_type() == ScalarType::Double ? add_up<double>(partial, sums, total)
                                              : add_up<float>(partial, sums, total);
  return total;
}

}  // namespace elsa
