#include "plan.h"

namespace elsa::neighborhood_attention {
namespace {

LaunchPlan describe(PlanRequest& request) {
  const LocalShape shape = cpu::requested_local_shape(request);
  return cpu::describe(shape, forward_plan(shape));
}

const LaunchPlanEntry entry("neighborhood_attention", describe);

}  // namespace
}  // namespace elsa::neighborhood_attention
