// Errors of the ops. Their messages name the argument, what was expected and what came; registration.h adds the op.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace elsa {

using Sizes = std::vector<int64_t>;

std::ostream& operator<<(std::ostream& out, const Sizes& sizes);

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throw `parts` as one message unless `ok`.
template <typename... Parts>
void check(bool ok, const Parts&... parts) {
  if (!ok) {
    std::ostringstream message;
    (message << ... << parts);
    throw Error(message.str());
  }
}

// What went wrong, in one sentence, also where PyTorch or the C++ library says more, or something else.
std::string cause(const std::exception& error);

}  // namespace elsa
