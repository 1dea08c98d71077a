#include "errors.h"

#include <new>

namespace elsa {

std::ostream& operator<<(std::ostream& out, const Sizes& sizes) {
  out << '(';
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    out << (i == 0 ? "" : ", ") << sizes[i];
  }
  return out << (sizes.size() == 1 ? ",)" : ")");
}

std::string cause(const std::exception& error) {
  const std::string message = error.what();
  if (dynamic_cast<const Error*>(&error) != nullptr) {
    return message;
  }
  // PyTorch's parallel loop passes on what it says, and not its type.
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr || message.starts_with("std::bad_alloc")) {
    return "out of memory";
  }
  // PyTorch puts its own message before this, or from 2.10 to 2.12 on stderr alone.
  const std::size_t end = message.find(" (originally from ");
  if (end == std::string::npos && message.find(" API call failed at ") != std::string::npos) {
    return "out of memory, or a failure inside PyTorch that it reports on stderr";
  }
  return message.substr(0, end);
}

}  // namespace elsa
