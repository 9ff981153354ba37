// Timelines as arrays; shared by Program and Stepper.
#pragma once
#include "../core/timeline.h"
#include "arrays.h"

namespace pbp {

// (jobs, work, wait): a dict a job, and seconds (steps, threads, jobs + the slots of StepSlot).
py::tuple read_timeline(const Plan& plan, const Timeline& timeline);

}  // namespace pbp
