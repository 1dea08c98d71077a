// What a call of an op gets on the CPU, by name: for people who want to know, and for tests.
#pragma once

#include <array>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "dtype.h"
#include "export.h"

namespace elsa {

// The sizes and options of a call, by name.
class PlanRequest {
 public:
  PlanRequest(std::map<std::string, std::vector<int64_t>> numbers, std::map<std::string, std::string> words,
              DType dtype)
      : numbers_(std::move(numbers)), words_(std::move(words)), dtype_(dtype) {}

  DType dtype() const { return dtype_; }

  // They throw std::invalid_argument where a number is absent or not positive.
  int64_t positive(const std::string& name);
  int64_t positive(const std::string& name, int64_t otherwise);

  // One for each axis, of one for both or of two.
  std::array<int64_t, 2> positive_pair(const std::string& name);
  std::array<int64_t, 2> positive_pair(const std::string& name, int64_t otherwise);
  std::array<bool, 2> flags(const std::string& name);  // false where they are absent

  std::string word(const std::string& name, const std::string& otherwise);

  // Throws std::invalid_argument if a number was given that the op has not asked for.
  void expect_no_more() const;

 private:
  std::map<std::string, std::vector<int64_t>> numbers_;  // one, or one for each axis
  std::map<std::string, std::string> words_;
  DType dtype_;
};

using LaunchPlan = std::map<std::string, std::variant<int64_t, std::string>>;

// An op's answer, registered where it is defined: `const LaunchPlanEntry entry("ghost_head", describe);`
struct LaunchPlanEntry {
  LaunchPlanEntry(const char* op, LaunchPlan (*describe)(PlanRequest&));
};

// Throws std::invalid_argument, without the op's name, where there is no such op or it would not take the numbers.
ELSA_EXPORT LaunchPlan launch_plan(const std::string& op, PlanRequest request);

}  // namespace elsa
