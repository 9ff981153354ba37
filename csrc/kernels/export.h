// Turns op structs into the one table an object exports. Included last by every op file.
#pragma once
#include "../core/op.h"

namespace pbp {
namespace {

// Ops without a backward set `static constexpr uint32_t flags = kNoGradient`; functions of one element, derived from
// Elementwise (kernels/loops.h), have `row`; others inherit the defaults below.
struct OpDefaults {
  static constexpr uint32_t flags = 0;
  static constexpr bool (*absorb)(Absorb&) = nullptr;
  static constexpr bool has_row = false;
  static constexpr bool has_backward = true;
  static constexpr bool has_forward = true;
};

template <class Op, class T>
constexpr RowFn row_of() {
  if constexpr (Op::has_row)
    return RowFn{Op::template row_forward<T>, Op::template row_backward<T>};
  else
    return RowFn{nullptr, nullptr};
}
template <class Op, class T>
constexpr TaskFn forward_of() {
  if constexpr (Op::has_forward)
    return run_forward<Op, T>;
  else
    return nullptr;
}
template <class Op, class T>
constexpr TaskFn backward_of() {
  if constexpr (Op::has_backward)
    return run_backward<Op, T>;
  else
    return nullptr;
}

template <class Op>
constexpr OpEntry pbp_op() {
  return OpEntry{Op::name,
                 Op::infer,
                 {forward_of<Op, float>(), forward_of<Op, double>()},
                 {backward_of<Op, float>(), backward_of<Op, double>()},
                 {row_of<Op, float>(), row_of<Op, double>()},
                 Op::absorb,
                 Op::flags | (Op::has_backward ? 0u : uint32_t(kNoGradient))};
}

}  // namespace
}  // namespace pbp

#define PBP_JOIN2(a, b, c) a##b##_##c
#define PBP_JOIN(a, b, c) PBP_JOIN2(a, b, c)
#define PBP_EXPORT(file, table)                                                                 \
  namespace pbp {                                                                               \
  extern const OpTable PBP_JOIN(ops_, file, PBP_ISA);                                           \
  const OpTable PBP_JOIN(ops_, file, PBP_ISA) = {table, int(sizeof(table) / sizeof(table[0]))}; \
  }
