// The one list of op files and of instruction sets. setup.py reads neither: it compiles every csrc/ops/*.cpp and
// csrc/optim/rules.cpp and csrc/measure/limits.cpp once per level; this list is what the registry links against, so a
// missing line is a link error.
#pragma once
#include "../core/op.h"
#include "../core/optim.h"

#define PBP_OP_FILES(X) \
  X(activations)        \
  X(arithmetic)         \
  X(compare)            \
  X(dropout)            \
  X(embedding)          \
  X(internal)           \
  X(linear)             \
  X(matmul)             \
  X(losses)             \
  X(class_losses)       \
  X(norms)              \
  X(reductions)         \
  X(scores)             \
  X(shapes)             \
  X(softmax)

#if defined(PBP_ONE_LEVEL)  // sanitized builds: compiling one takes long enough
#define PBP_APPLY(X, level) X(level)
#define PBP_LEVELS(X) PBP_APPLY(X, PBP_ONE_LEVEL)
#elif defined(__aarch64__)
#define PBP_LEVELS(X) X(neon)
#else
#define PBP_LEVELS(X) X(v2) X(v3) X(v4)
#endif
