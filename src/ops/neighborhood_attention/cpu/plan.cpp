#include "plan.h"

namespace elsa::neighborhood_attention {
namespace {

LaunchPlan describe(PlanRequest& request) {
  const LocalShape shape = cpu::requested_local_shape(request);
  LaunchPlan plan = cpu::describe(shape, forward_plan(shape)), backward = cpu::describe(shape, backward_plan(shape));
  for (const char* name : {"tile rows", "tile columns", "strip rows", "window rows", "window columns", "units"}) {
    plan[std::string("backward ") + name] = backward[name];
  }
  plan["backward phases"] = backward["backward phases"];
  return plan;
}

const LaunchPlanEntry entry("neighborhood_attention", describe);

}  // namespace
}  // namespace elsa::neighborhood_attention
