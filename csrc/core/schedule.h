// The last two steps of planning, once all items stand: where every buffer lies, and which jobs wait for which.
#pragma once
#include "plan.h"

namespace pbp {

// Gives every arena buffer an offset, so that buffers share bytes only if their lives do not meet.
void place_buffers(Plan& plan);

// Cuts items into jobs, with a barrier only where bytes cross threads, and into segments between ops of the host.
void schedule_jobs(Plan& plan);

}  // namespace pbp
