// A team of plain threads, for forked children: OpenMP there would wait for the threads of the parent.
#pragma once

namespace pbp {

// Runs body(thread, threads, context) on `threads` threads, the caller being number 0, and returns when all are done.
// False, and nothing has run, if the system gives no more threads. The others belong to the calling thread and sleep
// between calls.
bool run_crew(int threads, void (*body)(int thread, int threads, void* context), void* context);

}  // namespace pbp
