#include "launch_plan.h"

#include <stdexcept>

namespace elsa {
namespace {

using Describe = LaunchPlan (*)(PlanRequest&);

std::map<std::string, Describe>& entries() {
  static std::map<std::string, Describe> by_op;
  return by_op;
}

int64_t checked(const std::string& name, int64_t number) {
  if (number < 1) throw std::invalid_argument(name + " must be positive, got " + std::to_string(number));
  return number;
}

}  // namespace

int64_t PlanRequest::positive(const std::string& name) {
  const auto found = numbers_.extract(name);
  if (found.empty()) throw std::invalid_argument(name + " is missing");
  return checked(name, found.mapped());
}

int64_t PlanRequest::positive(const std::string& name, int64_t otherwise) {
  const auto found = numbers_.extract(name);
  return found.empty() ? otherwise : checked(name, found.mapped());
}

void PlanRequest::expect_no_more() const {
  if (!numbers_.empty()) throw std::invalid_argument("no size or option has the name " + numbers_.begin()->first);
}

LaunchPlanEntry::LaunchPlanEntry(const char* op, Describe describe) { entries().emplace(op, describe); }

LaunchPlan launch_plan(const std::string& op, PlanRequest request) {
  const auto found = entries().find(op);
  if (found == entries().end()) throw std::invalid_argument("no op has the name " + op);
  return found->second(request);
}

}  // namespace elsa
