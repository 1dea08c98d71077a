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

int64_t one(const std::string& name, const std::vector<int64_t>& numbers) {
  if (numbers.size() != 1) throw std::invalid_argument(name + " must be one number");
  return numbers[0];
}

// One for each axis.
std::array<int64_t, 2> pair(const std::string& name, const std::vector<int64_t>& numbers) {
  if (numbers.empty() || numbers.size() > 2) throw std::invalid_argument(name + " must be one number or two");
  return {numbers.front(), numbers.back()};
}

}  // namespace

int64_t PlanRequest::positive(const std::string& name) {
  const auto found = numbers_.extract(name);
  if (found.empty()) throw std::invalid_argument(name + " is missing");
  return checked(name, one(name, found.mapped()));
}

int64_t PlanRequest::positive(const std::string& name, int64_t otherwise) {
  return numbers_.contains(name) ? positive(name) : otherwise;
}

std::array<int64_t, 2> PlanRequest::positive_pair(const std::string& name) {
  const auto found = numbers_.extract(name);
  if (found.empty()) throw std::invalid_argument(name + " is missing");
  const auto [y, x] = pair(name, found.mapped());
  return {checked(name, y), checked(name, x)};
}

std::array<int64_t, 2> PlanRequest::positive_pair(const std::string& name, int64_t otherwise) {
  return numbers_.contains(name) ? positive_pair(name) : std::array{otherwise, otherwise};
}

std::array<bool, 2> PlanRequest::flags(const std::string& name) {
  const auto found = numbers_.extract(name);
  if (found.empty()) return {false, false};
  const auto [y, x] = pair(name, found.mapped());
  return {y != 0, x != 0};
}

std::string PlanRequest::word(const std::string& name, const std::string& otherwise) {
  const auto found = words_.extract(name);
  return found.empty() ? otherwise : found.mapped();
}

void PlanRequest::expect_no_more() const {
  const std::string message = "no size or option has the name ";
  if (!numbers_.empty()) throw std::invalid_argument(message + numbers_.begin()->first);
  if (!words_.empty()) throw std::invalid_argument(message + words_.begin()->first);
}

LaunchPlanEntry::LaunchPlanEntry(const char* op, Describe describe) { entries().emplace(op, describe); }

LaunchPlan launch_plan(const std::string& op, PlanRequest request) {
  const auto found = entries().find(op);
  if (found == entries().end()) throw std::invalid_argument("no op has the name " + op);
  return found->second(request);
}

}  // namespace elsa
