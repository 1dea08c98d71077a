// What a call of an op would get on the CPU.
#pragma once

#include <map>
#include <string>
#include <variant>

#include "elsa/cpu_capability.h"
#include "elsa/hadamard_attention.h"

namespace elsa::cpu {

using LaunchPlan = std::map<std::string, std::variant<int64_t, std::string>>;

// They throw std::invalid_argument where the op would not take the shape.
ELSA_EXPORT LaunchPlan launch_plan(const GhostHeadShape& shape, DType dtype);
ELSA_EXPORT LaunchPlan launch_plan(const HadamardShape& shape, DType dtype);

}  // namespace elsa::cpu
