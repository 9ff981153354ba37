// What a model computes: values and the nodes between them, in the order they were traced. Shape rules run as nodes are
// added, so every mistake is reported at the line of the user's model that made it. Knows no particular op.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "op.h"
#include "param.h"
#include "registry.h"

namespace pbp {

using AttrValue = std::variant<int64_t, double, std::vector<int64_t>, std::vector<double>>;
struct Attr {
  std::string name;
  AttrValue value;
};

// A node whose work is done by the host language: called between regions, on the calling thread. Throws HostError.
class HostOp {
 public:
  virtual ~HostOp() = default;
  virtual void forward(const std::vector<View>& in, const std::vector<View>& out) = 0;
  virtual void backward(const std::vector<View>& in, const std::vector<View>& out, const std::vector<View>& d_out,
                        const std::vector<View>& d_in) = 0;
};

enum class Kind : uint8_t { input, param, constant, node };

struct Value {
  Kind kind = Kind::node;
  DType dtype = DType::f32;
  Shape shape;
  int node = -1;   // producer
  int output = 0;  // which of its outputs
  int index = -1;  // number among inputs, or among constants
  ParamPtr param;
  bool trainable = false;
  std::string name;
};

struct Phase {
  int64_t tasks = 0;
  double cost = 0;  // ns a task
  bool rows = false;
  uint32_t local = 0;  // rows phase: bit i: input i is read at the task's own rows only
  int number = 0;      // Task::phase
};

struct Saved {
  Shape shape;
  DType dtype;
};

struct Node {
  const OpEntry* op = nullptr;  // null for a host op
  std::shared_ptr<HostOp> host;
  std::string where;
  std::vector<int> in, out;  // values
  // What `infer` declared.
  struct alignas(64) PlanBytes {
    unsigned char b[512];
  };
  std::shared_ptr<PlanBytes> plan;
  size_t plan_size = 0;
  std::vector<uint8_t> keep_in, keep_out, no_gradient, constant_out, accumulates, any_layout, updates, sparse;
  std::vector<Saved> saved;
  struct Way {  // how a pass is cut
    std::vector<Phase> phases;
    int64_t scratch = 0;
  };
  Way ways[2][2];                          // of each pass: the usual one, and one to take instead
  int unwanted[2] = {-1, -1}, trained[2];  // inputs that decide about it; -1: there is none
  int64_t local[2] = {0, 0};

  Way& way(int pass) { return ways[pass][unwanted[pass] >= 0]; }  // being declared

  const char* name() const { return op ? op->name : "function"; }
};

// Integers that index something: every value must lie in [low, high) or equal `exempt`.
struct IntRange {
  int input;  // number of the graph input
  int64_t low, high, exempt;
  std::string what, where;
  int node;  // that reads it
};

struct Constant {
  std::shared_ptr<Block> data;
};

struct Assignment {  // after a successful training step: target takes value's contents (value < 0: target += 1)
  int target, value;
};

class Graph {
 public:
  Graph(DType dtype, bool training, const std::string& isa);

  int input(const Shape& shape, bool integer, const std::string& name);
  int param(const ParamPtr& p, const std::string& name, bool trainable);
  int constant(const Shape& shape, DType dtype, const void* data);
  std::vector<int> node(const std::string& op, const std::vector<int>& in, const std::string& where,
                        const std::vector<Attr>& attrs);
  std::vector<int> host_node(std::shared_ptr<HostOp> op, const std::vector<int>& in, const std::vector<Shape>& shapes,
                             const std::string& where);
  void assign(int target, int value);
  int latest(int target) const;  // the value assigned to a buffer so far, else the buffer itself
  void increment(int target);

  const Value& value(int v) const;
  Value& value(int v);
  std::string describe(int v) const;  // "Sequential[1] (relu)", "input 0", "parameter 0.weight"

  const DType dtype;
  const bool training;
  const Level* const level;
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<int> inputs;
  std::vector<Constant> constants;
  std::vector<IntRange> ranges;
  std::vector<Assignment> assignments;

 private:
  friend class Infer;
  int add(Value v);
};

std::string to_text(const Shape& s);

}  // namespace pbp
