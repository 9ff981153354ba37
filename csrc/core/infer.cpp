#include "infer.h"

#include <cstdarg>
#include <cstdio>

#include "error.h"

namespace pbp {

const AttrValue* Infer::Impl::find(const char* name) const {
  asked.insert(name);
  for (const Attr& a : attrs)
    if (a.name == name) return &a.value;
  return nullptr;
}

int Infer::n_in() const { return int(p_->node.in.size()); }
const Shape& Infer::in(int i) const { return p_->graph.value(p_->node.in.at(size_t(i))).shape; }
bool Infer::is_int(int i) const { return p_->graph.value(p_->node.in.at(size_t(i))).dtype == DType::i64; }
const char* Infer::who(int i) const {
  p_->texts.push_back(p_->graph.describe(p_->node.in.at(size_t(i))));
  return p_->texts.back().c_str();
}
bool Infer::training() const { return p_->graph.training; }
bool Infer::bf16() const { return p_->graph.level->bf16 && p_->graph.dtype == DType::f32; }

bool Infer::has(const char* name) const { return p_->find(name) != nullptr; }

double Infer::f(const char* name, double otherwise) const {
  const AttrValue* v = p_->find(name);
  if (!v) return otherwise;
  if (auto* d = std::get_if<double>(v)) return *d;
  if (auto* n = std::get_if<int64_t>(v)) return double(*n);
  throw TypeError("option " + std::string(name) + " expects a number, got a list");
}

int64_t Infer::i(const char* name, int64_t otherwise) const {
  const AttrValue* v = p_->find(name);
  if (!v) return otherwise;
  if (auto* n = std::get_if<int64_t>(v)) return *n;
  if (auto* d = std::get_if<double>(v))
    if (double(int64_t(*d)) == *d) return int64_t(*d);
  throw TypeError("option " + std::string(name) + " expects an integer");
}

int Infer::ints(const char* name, int64_t* values, int max) const {
  const AttrValue* v = p_->find(name);
  if (!v) return -1;
  if (auto* n = std::get_if<int64_t>(v)) {
    values[0] = *n;
    return 1;
  }
  if (auto* d = std::get_if<std::vector<double>>(v))
    if (d->empty()) return 0;
  auto* list = std::get_if<std::vector<int64_t>>(v);
  if (!list) throw TypeError("option " + std::string(name) + " expects integers");
  if (int(list->size()) > max)
    throw ValueError("option " + std::string(name) + " takes at most " + std::to_string(max) + " numbers, got " +
                     std::to_string(list->size()));
  for (size_t k = 0; k < list->size(); ++k) values[k] = (*list)[k];
  return int(list->size());
}

int Infer::floats(const char* name, double* values, int max) const {
  const AttrValue* v = p_->find(name);
  if (!v) return -1;
  std::vector<double> list;
  if (auto* d = std::get_if<double>(v)) list = {*d};
  if (auto* n = std::get_if<int64_t>(v)) list = {double(*n)};
  if (auto* d = std::get_if<std::vector<double>>(v)) list = *d;
  if (auto* n = std::get_if<std::vector<int64_t>>(v)) list.assign(n->begin(), n->end());
  if (int(list.size()) > max)
    throw ValueError("option " + std::string(name) + " takes at most " + std::to_string(max) + " numbers, got " +
                     std::to_string(list.size()));
  for (size_t k = 0; k < list.size(); ++k) values[k] = list[k];
  return int(list.size());
}

bool Infer::fail(const char* format, ...) {
  char text[1024];
  va_list args;
  va_start(args, format);
  std::vsnprintf(text, sizeof text, format, args);
  va_end(args);
  p_->error = text;
  return false;
}

const char* Infer::text(const Shape& s) {
  p_->texts.push_back(to_text(s));
  return p_->texts.back().c_str();
}

bool Infer::expect_inputs(int least, int most) {
  const int n = n_in();
  if (n >= least && n <= most) return true;
  if (least == most) return fail("expects %d inputs, got %d", least, n);
  return fail("expects %d to %d inputs, got %d", least, most, n);
}

bool Infer::expect_float(int i) {
  if (!is_int(i)) return true;
  fail("expects floating-point numbers, but %s holds integers", who(i));
  throw TypeError("[" + std::string(p_->node.name()) + "] " + p_->node.where + (p_->node.where.empty() ? "" : ": ") +
                  p_->error);
}

bool Infer::expect_int(int i, int64_t low, int64_t high, const char* what, int64_t exempt) {
  Graph& g = p_->graph;
  int v = p_->node.in.at(size_t(i));
  if (!is_int(i)) {
    fail("expects integer %s, but %s holds floating-point numbers", what, who(i));
    throw TypeError("[" + std::string(p_->node.name()) + "] " + p_->node.where + (p_->node.where.empty() ? "" : ": ") +
                    p_->error);
  }
  while (g.value(v).kind == Kind::node) v = g.nodes[size_t(g.value(v).node)].in[0];  // reshapes of integers are aliases
  const Value& source = g.value(v);
  if (source.kind == Kind::constant) {
    const auto* ids = reinterpret_cast<const int64_t*>(g.constants[size_t(source.index)].data->data());
    for (int64_t k = 0; k < source.shape.count(); ++k)
      if ((ids[k] < low || ids[k] >= high) && ids[k] != exempt)
        return fail("%s must be from %lld to %lld, got %lld", what, (long long)low, (long long)high - 1,
                    (long long)ids[k]);
  } else if (source.kind == Kind::input) {
    g.ranges.push_back({source.index, low, high, exempt, what, p_->node.where, int(g.nodes.size())});
  } else {
    return fail("%s must be an input or a constant, but %s is a parameter", what, who(i));
  }
  return true;
}

void Infer::out(const Shape& s) {
  Value v;
  const bool alias = p_->node.op && (p_->node.op->flags & kAlias);
  v.dtype = alias ? p_->graph.value(p_->node.in[0]).dtype : p_->graph.dtype;
  v.shape = s;
  p_->out.push_back(v);
}
void Infer::out_like(int i) { out(in(i)); }

void Infer::keep_in(int i) { p_->node.keep_in.at(size_t(i)) = 1; }
void Infer::keep_out(int i) {
  if (p_->node.keep_out.size() <= size_t(i)) p_->node.keep_out.resize(size_t(i) + 1);
  p_->node.keep_out[size_t(i)] = 1;
}
int Infer::save(const Shape& s) {
  p_->node.saved.push_back({s, p_->graph.dtype});
  return int(p_->node.saved.size()) - 1;
}
int Infer::save_ints(const Shape& s) {
  p_->node.saved.push_back({s, DType::i64});
  return int(p_->node.saved.size()) - 1;
}
void Infer::no_gradient(int i) { p_->node.no_gradient.at(size_t(i)) = 1; }
void Infer::constant_out(int i) {
  if (p_->node.constant_out.size() <= size_t(i)) p_->node.constant_out.resize(size_t(i) + 1);
  p_->node.constant_out[size_t(i)] = 1;
}
void Infer::accumulates(int i) { p_->node.accumulates.at(size_t(i)) = 1; }
void Infer::any_layout(int i) { p_->node.any_layout.at(size_t(i)) = 1; }
void Infer::updates(int i) { p_->node.updates.at(size_t(i)) = 1; }
void Infer::sparse_gradient(int i) { p_->node.sparse.at(size_t(i)) = 1; }

namespace {
void declare(Node& node, Pass pass, Phase phase) {
  auto& phases = node.way(pass).phases;
  phase.number = int(phases.size()) + (node.unwanted[pass] >= 0 ? kInstead : 0);
  phases.push_back(phase);
}
}  // namespace
void Infer::rows(Pass pass, int64_t n, double cost, uint32_t local) {
  declare(p_->node, pass, {n, cost, true, local, 0});
}
void Infer::phase(Pass pass, int64_t tasks, double cost) { declare(p_->node, pass, {tasks, cost, false, 0, 0}); }
void Infer::instead(Pass pass, int i, int trained) {
  p_->node.unwanted[pass] = i;
  p_->node.trained[pass] = trained;
}
void Infer::scratch(Pass pass, int64_t bytes) { p_->node.way(pass).scratch = bytes; }
void Infer::local(Pass pass, int64_t bytes) { p_->node.local[pass] = bytes; }

void* Infer::plan_bytes(size_t n) {
  if (!p_->node.plan) {
    p_->node.plan = std::make_shared<Node::PlanBytes>();
    std::memset(p_->node.plan->b, 0, sizeof p_->node.plan->b);
  }
  if (n > p_->node.plan_size) p_->node.plan_size = n;
  return p_->node.plan->b;
}

const char* Absorb::next() const { return p_->next.name(); }
const RowFn* Absorb::row_fn() const {
  if (!p_->next.op) return nullptr;
  const RowFn& f = p_->next.op->row[p_->graph.dtype == DType::f64];
  return f.forward ? &f : nullptr;
}
bool Absorb::row_fn_needs_x() const { return p_->next.op && (p_->next.op->flags & kRowFnNeedsX); }
const void* Absorb::row_plan() const { return p_->next.plan ? p_->next.plan->b : nullptr; }
size_t Absorb::row_plan_size() const { return p_->next.plan_size; }
void Absorb::keep_out() { p_->node.keep_out.assign(std::max<size_t>(1, p_->node.keep_out.size()), 1); }
int Absorb::save_like_output() {
  p_->node.saved.push_back({p_->graph.value(p_->node.out[0]).shape, p_->graph.dtype});
  return int(p_->node.saved.size()) - 1;
}
void Absorb::add_cost(double forward, double backward) {
  const double n = double(p_->graph.value(p_->node.out[0]).shape.count());
  const double extra[2] = {forward * n, backward * n};
  for (int pass = 0; pass < 2; ++pass)
    for (Node::Way& way : p_->node.ways[pass]) {
      if (way.phases.empty()) continue;
      Phase& phase = pass == kForward ? way.phases.back() : way.phases.front();  // where elements are made, and read
      if (phase.tasks > 0) phase.cost += extra[pass] / double(phase.tasks);
    }
}
void* Absorb::plan_bytes() {
  if (!p_->node.plan) {
    p_->node.plan = std::make_shared<Node::PlanBytes>();
    std::memset(p_->node.plan->b, 0, sizeof p_->node.plan->b);
  }
  return p_->node.plan->b;
}

}  // namespace pbp
