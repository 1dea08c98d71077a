#include "plan.h"

namespace elsa::neighborhood_logits {
namespace {

LaunchPlan describe(PlanRequest& request) {
  const LocalShape shape = cpu::requested_local_shape(request);
  return cpu::describe(shape, plan_of(shape));
}

const LaunchPlanEntry entry("neighborhood_logits", describe);

}  // namespace
}  // namespace elsa::neighborhood_logits
