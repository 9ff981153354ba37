#include "graph.h"

#include "error.h"
#include "infer.h"

namespace pbp {

std::string to_text(const Shape& s) {
  std::string t = "(";
  for (int i = 0; i < s.rank; ++i) t += (i ? ", " : "") + std::to_string(s.dim[i]);
  return t + (s.rank == 1 ? ",)" : ")");
}

Graph::Graph(DType dtype_, bool training_, const std::string& isa)
    : dtype(dtype_), training(training_), level(&pbp::level(isa)) {}

const Value& Graph::value(int v) const {
  if (v < 0 || size_t(v) >= values.size())
    throw ValueError("there is no value " + std::to_string(v) + " in this graph");
  return values[size_t(v)];
}
Value& Graph::value(int v) { return const_cast<Value&>(static_cast<const Graph*>(this)->value(v)); }

std::string Graph::describe(int v) const {
  const Value& x = value(v);
  switch (x.kind) {
    case Kind::input:
      return x.name.empty() ? "input " + std::to_string(x.index) : x.name;
    case Kind::param:
      return x.name.empty() ? "a parameter" : "parameter " + x.name;
    case Kind::constant:
      return "a constant";
    case Kind::node:
      break;
  }
  const Node& n = nodes[size_t(x.node)];
  return n.where.empty() ? n.name() : n.where + " (" + n.name() + ")";
}

int Graph::add(Value v) {
  values.push_back(std::move(v));
  return int(values.size()) - 1;
}

int Graph::input(const Shape& shape, bool integer, const std::string& name) {
  Value v;
  v.kind = Kind::input;
  v.dtype = integer ? DType::i64 : dtype;
  v.shape = shape;
  v.name = name;
  v.index = int(inputs.size());
  inputs.push_back(add(std::move(v)));
  return inputs.back();
}

int Graph::param(const ParamPtr& p, const std::string& name, bool trainable) {
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].kind == Kind::param && values[i].param == p) {
      values[i].trainable = values[i].trainable || trainable;
      return int(i);
    }
  if (p->dtype != dtype && p->dtype != DType::i64)
    throw TypeError("parameter " + name + " is float" + (p->dtype == DType::f64 ? "64" : "32") +
                    ", but the program computes in float" + (dtype == DType::f64 ? "64" : "32") +
                    ": convert the model with model.astype");
  Value v;
  v.kind = Kind::param;
  v.dtype = p->dtype;
  v.shape = p->shape;
  v.param = p;
  v.trainable = trainable;
  v.name = name;
  return add(std::move(v));
}

int Graph::constant(const Shape& shape, DType type, const void* data) {
  Value v;
  v.kind = Kind::constant;
  v.dtype = type;
  v.shape = shape;
  v.index = int(constants.size());
  const int64_t bytes = shape.count() * size_of(type);
  auto block = std::make_shared<Block>(bytes);
  if (bytes) std::memcpy(block->data(), data, size_t(bytes));
  constants.push_back({block});
  return add(std::move(v));
}

std::vector<int> Graph::node(const std::string& op, const std::vector<int>& in, const std::string& where,
                             const std::vector<Attr>& attrs) {
  const OpEntry& entry = level->op(op);
  for (int v : in) value(v);
  Node n;
  n.op = &entry;
  n.where = where;
  n.in = in;
  n.keep_in.assign(in.size(), 0);
  n.no_gradient.assign(in.size(), 0);
  n.accumulates.assign(in.size(), 0);
  n.updates.assign(in.size(), 0);
  n.any_layout.assign(in.size(), 0);
  n.sparse.assign(in.size(), 0);
  const size_t known_ranges = ranges.size();
  Infer::Impl impl{*this, n, attrs, {}, {}, {}, {}};
  Infer infer(&impl);
  const std::string prefix = "[" + op + "]" + (where.empty() ? "" : " " + where + ":") + " ";
  bool fine = false;
  try {
    fine = entry.infer(infer);
  } catch (const ValueError& e) {
    ranges.resize(known_ranges);
    throw ValueError(prefix + e.what());
  } catch (const TypeError& e) {
    ranges.resize(known_ranges);
    const std::string said = e.what();
    throw TypeError(said.rfind("[", 0) == 0 ? said : prefix + said);
  }
  if (!fine) {
    ranges.resize(known_ranges);
    throw ValueError(prefix + impl.error);
  }
  for (const Attr& a : attrs)
    if (!impl.asked.count(a.name)) {
      std::string known;
      for (const std::string& k : impl.asked) known += (known.empty() ? "" : ", ") + k;
      throw ValueError(prefix + "unknown option " + a.name + (known.empty() ? "; it has none" : "; it has " + known));
    }
  n.keep_out.resize(impl.out.size(), 0);
  n.constant_out.resize(impl.out.size(), 0);
  for (const Value& o : impl.out)
    if (o.shape.rank > kMaxRank) throw ValueError(prefix + "a result has more than 8 dimensions");
  for (size_t k = 0; k < impl.out.size(); ++k) {
    Value v = impl.out[k];
    v.kind = Kind::node;
    v.node = int(nodes.size());
    v.output = int(k);
    n.out.push_back(add(std::move(v)));
  }
  nodes.push_back(std::move(n));
  return nodes.back().out;
}

std::vector<int> Graph::host_node(std::shared_ptr<HostOp> op, const std::vector<int>& in,
                                  const std::vector<Shape>& shapes, const std::string& where) {
  for (int v : in) value(v);
  Node n;
  n.host = std::move(op);
  n.where = where;
  n.in = in;
  n.keep_in.assign(in.size(), 1);
  n.no_gradient.assign(in.size(), 0);
  for (size_t i = 0; i < in.size(); ++i) n.no_gradient[i] = value(in[i]).dtype == DType::i64;
  n.accumulates.assign(in.size(), 0);
  n.updates.assign(in.size(), 0);
  n.any_layout.assign(in.size(), 0);
  n.sparse.assign(in.size(), 0);
  n.keep_out.assign(shapes.size(), 1);
  n.constant_out.assign(shapes.size(), 0);
  for (size_t k = 0; k < shapes.size(); ++k) {
    Value v;
    v.dtype = dtype;
    v.shape = shapes[k];
    v.node = int(nodes.size());
    v.output = int(k);
    n.out.push_back(add(std::move(v)));
  }
  nodes.push_back(std::move(n));
  return nodes.back().out;
}

void Graph::assign(int target, int v) {
  const Value &t = value(target), &x = value(v);
  if (t.kind != Kind::param || t.dtype != dtype || x.dtype != dtype || t.param->layout != Layout::dense ||
      !t.shape.same(x.shape))
    throw ValueError("assign expects a dense buffer and a value of its dtype and shape, got " + describe(target) +
                     " of shape " + to_text(t.shape) + " and a value of shape " + to_text(x.shape));
  for (Assignment& a : assignments)
    if (a.target == target) {
      a.value = v;
      return;
    }
  assignments.push_back({target, v});
}

int Graph::latest(int target) const {
  for (const Assignment& a : assignments)
    if (a.target == target && a.value >= 0) return a.value;
  value(target);
  return target;
}

void Graph::increment(int target) {
  const Value& t = value(target);
  if (t.kind != Kind::param || t.dtype != DType::i64 || t.shape.count() != 1)
    throw ValueError("increment expects an integer buffer of one element");
  assignments.push_back({target, -1});
}

}  // namespace pbp
