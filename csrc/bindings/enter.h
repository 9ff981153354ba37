// Holding the gates of parameters from Python: tried with the GIL, waited for without it.
#pragma once
#include <algorithm>

#include "../core/program.h"
#include "arrays.h"

namespace pbp {

// The binding that `bind` resolves, with its gates held: to read, or, in a training, to write.
template <class Bind>
Binding& enter(Hold& hold, bool writes, Bind bind) {
  for (;;) {
    Binding& b = bind();
    const std::vector<GateUse>& uses = b.gates();
    if (hold.try_take(uses, writes)) return b;
    {
      py::gil_scoped_release release;
      hold.take(uses, writes);
    }
    if (b.current()) return b;  // else parameters moved while nobody looked
    hold.release();
  }
}

// Those of parameters; `uses` keeps them.
inline void enter(Hold& hold, bool write, const std::vector<ParamPtr>& params, std::vector<GateUse>& uses) {
  for (;;) {
    uses = gates_of(params, write);
    if (hold.try_take(uses, true)) return;
    {
      py::gil_scoped_release release;
      hold.take(uses, true);
    }
    const std::vector<GateUse> now = gates_of(params, write);
    if (std::equal(uses.begin(), uses.end(), now.begin(), now.end(),
                   [](const GateUse& a, const GateUse& b) { return a.gate == b.gate; }))
      return;
    hold.release();
  }
}

}  // namespace pbp
