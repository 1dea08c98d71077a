#include "dispatcher.h"

#include <torch/csrc/stable/library.h>

#include <array>

namespace elsa {

void multiply(const Tensor& left, const Tensor& right, Tensor& out) {
  std::array<StableIValue, 3> stack{torch::stable::detail::from(left), torch::stable::detail::from(right),
                                    torch::stable::detail::from(out)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::bmm", "out", stack.data(), TORCH_ABI_VERSION));
}

}  // namespace elsa
