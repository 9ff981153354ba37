// What stands behind Infer and Absorb (op.h).
#pragma once
#include <deque>
#include <set>

#include "graph.h"

namespace pbp {

struct Infer::Impl {
  Graph& graph;
  Node& node;
  const std::vector<Attr>& attrs;
  mutable std::set<std::string> asked;  // attributes the op knows
  mutable std::deque<std::string> texts;
  std::vector<Value> out;
  std::string error;

  const AttrValue* find(const char* name) const;
};

struct Absorb::Impl {
  Node& node;
  const Node& next;
  const Graph& graph;
};

}  // namespace pbp
