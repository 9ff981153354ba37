// Entering the gates of parameters under a lock that protects where parameters lie (Python's: the GIL), which is never
// held while waiting. `Released` is a scope without that lock.
#pragma once
#include <algorithm>

#include "program.h"

namespace pbp {

// The binding that `bind` resolves, with its gates held: to read, or, in a training, to write.
template <class Released, class Bind>
Binding& enter(Hold& hold, bool writes, Bind bind) {
  for (;;) {
    Binding& b = bind();
    const std::vector<GateUse>& uses = b.gates();
    if (hold.try_take(uses, writes)) return b;
    {
      const Released released;
      hold.take(uses, writes);
    }
    if (b.current()) return b;  // else parameters moved while nobody looked
    hold.release();
  }
}

// Those of parameters; `uses` keeps them.
template <class Released>
void enter(Hold& hold, bool write, const std::vector<ParamPtr>& params, std::vector<GateUse>& uses) {
  for (;;) {
    uses = gates_of(params, write);
    if (hold.try_take(uses, true)) return;
    {
      const Released released;
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
