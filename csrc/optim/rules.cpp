// The table of update rules. A new rule is a struct like Lion (momentum_rules.h) and one line here; the optimizer class
// in pybackprop/optim.py names it. Padding stays zero under all of them: a zero weight with zero gradients keeps still.
#include <math.h>

#include "../core/optim.h"
#include "../kernels/export.h"
#include "adaptive_rules.h"
#include "momentum_rules.h"

namespace pbp {
namespace {

template <class Rule>
constexpr RuleEntry rule_entry() {
  return RuleEntry{Rule::name,      Rule::hyper,   Rule::defaults,
                   Rule::states,    Rule::prepare, {Rule::template run<float>, Rule::template run<double>},
                   {0.0, 0.0, 0.0}, Rule::sparse};
}

constexpr RuleEntry kRules[] = {
    rule_entry<Sgd>(),     rule_entry<AdamRule<false>>(), rule_entry<AdamRule<true>>(),
    rule_entry<RmsProp>(), rule_entry<Adagrad>(),         rule_entry<Lion>(),
};

}  // namespace

extern const RuleTable PBP_JOIN(rules_, table, PBP_ISA);
const RuleTable PBP_JOIN(rules_, table, PBP_ISA) = {kRules,
                                                    int(sizeof(kRules) / sizeof(kRules[0])),
                                                    {square_sum<float>, square_sum<double>},
                                                    {finite<float>, finite<double>}};

}  // namespace pbp
