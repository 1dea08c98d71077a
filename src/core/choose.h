// A flag that is known at run time as a template argument.
#pragma once

#include <type_traits>

#include "inline.h"

namespace elsa {

// Call function(std::true_type) or function(std::false_type).
template <typename Function>
ELSA_INLINE_HERE void choose(bool flag, const Function& function) {
  flag ? function(std::true_type()) : function(std::false_type());
}

}  // namespace elsa
