#include "plan.h"

#include <algorithm>
#include <map>

#include "error.h"
#include "infer.h"
#include "schedule.h"

namespace pbp {
namespace {

View dense_view(const Shape& s) {
  View v;
  v.shape = s;
  for (int i = 0; i < s.rank; ++i) v.stride[i] = s.count_from(i + 1);
  return v;
}

void finish_single_task(Item& item) { item.phases = {Phase{1, 0, false, 0, 0}}; }

}  // namespace

struct Plan::Builder {
  Plan& plan;
  const Graph& graph;
  std::vector<int> outputs, wrt, keep;
  int loss;
  std::vector<Node> nodes;         // own copies: absorption amends them
  std::vector<uint8_t> live;       // node is part of the program
  std::vector<int> producer;       // value -> node, -1
  std::vector<int> buffer_of;      // value -> buffer, -1
  std::vector<int> dense_of;       // laid-out parameter -> buffer with a dense copy, -1
  std::vector<int> gradient_of;    // value -> buffer, -1
  std::vector<int> contributions;  // how many consumers will hand a gradient to this value
  std::vector<int> received;
  std::vector<uint8_t> wanted;             // value -> somebody needs its gradient
  std::vector<uint8_t> reached;            // value -> the loss depends on it
  std::vector<std::vector<int>> saved_of;  // node -> buffers
  std::map<const Param*, int> param_number;

  const Value& value(int v) const { return graph.values[size_t(v)]; }

  // -- which nodes
  // -------------------------------------------------------------------------------------------------------

  std::vector<int> roots() const {
    std::vector<int> r = outputs;
    if (loss >= 0) r.push_back(loss);
    r.insert(r.end(), keep.begin(), keep.end());
    if (loss >= 0)
      for (const Assignment& a : graph.assignments)
        if (a.value >= 0) r.push_back(a.value);
    return r;
  }

  void find_live() {
    nodes = graph.nodes;
    for (Node& n : nodes)
      if (n.plan) {  // absorption writes into the plan bytes
        auto own = std::make_shared<Node::PlanBytes>();
        std::memcpy(own->b, n.plan->b, sizeof own->b);
        n.plan = own;
      }
    producer.assign(graph.values.size(), -1);
    for (size_t i = 0; i < nodes.size(); ++i)
      for (int v : nodes[i].out) producer[size_t(v)] = int(i);
    live.assign(nodes.size(), 0);
    std::vector<int> todo = roots();
    while (!todo.empty()) {
      const int n = producer[size_t(todo.back())];
      todo.pop_back();
      if (n < 0 || live[size_t(n)]) continue;
      live[size_t(n)] = 1;
      todo.insert(todo.end(), nodes[size_t(n)].in.begin(), nodes[size_t(n)].in.end());
    }
  }

  void absorb() {
    std::vector<int> uses(graph.values.size(), 0), consumer(graph.values.size(), -1);
    for (size_t i = 0; i < nodes.size(); ++i)
      if (live[i])
        for (int v : nodes[i].in) {
          ++uses[size_t(v)];
          consumer[size_t(v)] = int(i);
        }
    for (int v : roots()) uses[size_t(v)] += 2;  // somebody outside looks at it
    for (int v : wrt) uses[size_t(v)] += 2;      // or at its gradient
    for (size_t i = 0; i < nodes.size(); ++i) {
      Node& n = nodes[i];
      if (!live[i] || !n.op || !n.op->absorb || n.out.size() != 1) continue;
      const int v = n.out[0];
      if (uses[size_t(v)] != 1) continue;
      const int c = consumer[size_t(v)];
      const Node& next = nodes[size_t(c)];
      if (!next.op || next.in.size() != 1 || next.out.size() != 1) continue;
      Absorb::Impl impl{n, next, graph};
      Absorb ask(&impl);
      if (!n.op->absorb(ask)) continue;
      n.out = next.out;
      producer[size_t(n.out[0])] = int(i);
      live[size_t(c)] = 0;
    }
  }

  // -- buffers
  // -----------------------------------------------------------------------------------------------------------

  int add_buffer(Space space, int64_t bytes, int index = -1) {
    Buffer b;
    b.space = space;
    b.used = bytes;
    b.bytes = round_up(std::max<int64_t>(bytes, 1), kAlign) + (plan.guarded ? kAlign : 0);
    b.index = index;
    plan.buffers.push_back(b);
    return int(plan.buffers.size()) - 1;
  }

  int arena(const Shape& s, DType t) { return add_buffer(Space::arena, s.count() * size_of(t)); }

  int param_index(const ParamPtr& p) {
    auto [at, fresh] = param_number.try_emplace(p.get(), int(plan.params.size()));
    if (fresh) plan.params.push_back(p);
    return at->second;
  }

  int buffer(int v) {
    int& b = buffer_of[size_t(v)];
    if (b >= 0) return b;
    const Value& x = value(v);
    switch (x.kind) {
      case Kind::param:
        b = add_buffer(Space::param, x.param->extent() * size_of(x.dtype), param_index(x.param));
        break;
      case Kind::constant:
        b = add_buffer(Space::constant, x.shape.count() * size_of(x.dtype), x.index);
        break;
      case Kind::input:
        b = arena(x.shape, x.dtype);
        plan.buffers[size_t(b)].persistent = true;
        break;
      case Kind::node:
        b = arena(x.shape, x.dtype);
        break;
    }
    return b;
  }

  bool laid_out(int v) const { return value(v).kind == Kind::param && value(v).param->layout != Layout::dense; }

  Operand operand(int v) {
    Operand o;
    o.buffer = buffer(v);
    o.view = laid_out(v) ? value(v).param->view(nullptr) : dense_view(value(v).shape);
    return o;
  }

  // The operand an op that wants dense rows may read.
  Operand dense_operand(int v) {
    if (!laid_out(v)) return operand(v);
    int& b = dense_of[size_t(v)];
    Operand o;
    o.view = dense_view(value(v).shape);
    if (b < 0) {
      b = arena(value(v).shape, value(v).dtype);
      o.buffer = b;
      copy_item("_copy", operand(v), o, "dense copy of " + graph.describe(v));
    }
    o.buffer = b;
    return o;
  }

  // -- items
  // -------------------------------------------------------------------------------------------------------------

  void copy_item(const char* op, const Operand& from, const Operand& to, const std::string& label) {
    Item item;
    item.fn = graph.level->op(op).forward[plan.dtype == DType::f64];
    if (from.buffer >= 0) item.in = {from};
    item.out = {to};
    item.op = op + 1;
    item.label = label + " (" + (op + 1) + ")";
    item.phases = {Phase{to.view.count(), 0.3, false, 0, 0}};
    plan.items.push_back(std::move(item));
  }

  void forward_item(int i) {
    Node& n = nodes[size_t(i)];
    if (n.op && (n.op->flags & kAlias)) {
      buffer_of[size_t(n.out[0])] = dense_operand(n.in[0]).buffer;
      return;
    }
    Item item;
    item.pass = kForward;
    item.host = n.host;
    item.plan = n.plan;
    item.op = n.name();
    item.label = label(n);
    for (size_t k = 0; k < n.in.size(); ++k)
      item.in.push_back(n.any_layout[k] ? operand(n.in[k]) : dense_operand(n.in[k]));
    for (int v : n.out) item.out.push_back(operand(v));
    for (const Saved& s : n.saved) {
      Operand o;
      o.buffer = arena(s.shape, s.dtype);
      o.view = dense_view(s.shape);
      item.saved.push_back(o);
      saved_of[size_t(i)].push_back(o.buffer);
    }
    if (n.op) {
      item.fn = n.op->forward[plan.dtype == DType::f64];
      finish(item, n, kForward);
    }
    plan.items.push_back(std::move(item));
  }

  void finish(Item& item, const Node& n, Pass pass) {
    const bool instead = n.unwanted[pass] >= 0 && loss >= 0 && wanted[size_t(n.in[size_t(n.trained[pass])])] &&
                         !carries(n, size_t(n.unwanted[pass]));
    const Node::Way& way = n.ways[pass][instead];
    item.phases = way.phases;
    if (item.phases.empty()) finish_single_task(item);
    if (way.scratch) item.scratch = add_buffer(Space::arena, way.scratch);
    item.local = n.local[pass];
    plan.local_bytes = std::max(plan.local_bytes, round_up(item.local, kAlign));
  }

  std::string label(const Node& n) const { return n.where.empty() ? n.name() : n.where + " (" + n.name() + ")"; }

  // -- backward
  // ----------------------------------------------------------------------------------------------------------

  bool differentiable(const Node& n) const { return n.host || (n.op->flags & kAlias) || n.op->backward[0] != nullptr; }

  bool passes_gradients(const Node& n) const {
    return differentiable(n) && std::any_of(n.no_gradient.begin(), n.no_gradient.end(), [](uint8_t no) { return !no; });
  }

  // An edge that carries a gradient back: input k of node i.
  bool carries(const Node& n, size_t k) const {
    return differentiable(n) && !n.no_gradient[k] && value(n.in[k]).dtype != DType::i64 && wanted[size_t(n.in[k])];
  }
  bool reached_node(const Node& n) const {
    return std::any_of(n.out.begin(), n.out.end(), [&](int v) { return reached[size_t(v)] != 0; });
  }

  void find_gradients() {
    const Value& l = value(loss);
    if (l.shape.count() != 1)
      throw ValueError("the loss must be a scalar, but " + graph.describe(loss) + " has shape " + to_text(l.shape) +
                       ": reduce it with .mean() or .sum()");
    if (l.dtype == DType::i64) throw TypeError("the loss must be a floating-point scalar, got integers");
    for (int v : wrt) {
      if (value(v).dtype == DType::i64)
        throw TypeError("no gradient can be taken with respect to integers: " + graph.describe(v));
      wanted[size_t(v)] = 1;
    }
    for (size_t i = 0; i < nodes.size(); ++i)
      if (live[i])
        for (size_t k = 0; k < nodes[i].in.size(); ++k)
          if (carries(nodes[i], k))
            for (size_t j = 0; j < nodes[i].out.size(); ++j)
              if (!nodes[i].constant_out[j]) wanted[size_t(nodes[i].out[j])] = 1;
    reached[size_t(loss)] = wanted[size_t(loss)];
    for (size_t i = nodes.size(); i-- > 0;)
      if (live[i] && reached_node(nodes[i]))
        for (size_t k = 0; k < nodes[i].in.size(); ++k)
          if (carries(nodes[i], k)) {
            reached[size_t(nodes[i].in[k])] = 1;
            ++contributions[size_t(nodes[i].in[k])];
          }
    if (!wrt.empty() && std::none_of(wrt.begin(), wrt.end(), [&](int v) { return reached[size_t(v)] != 0; })) {
      std::string blocked;
      for (size_t i = 0; i < nodes.size(); ++i)
        if (live[i] && !passes_gradients(nodes[i])) blocked = ": " + label(nodes[i]) + " has no gradient";
      throw ValueError("the loss does not depend on anything it should be differentiated by" + blocked);
    }
  }

  Operand gradient_operand(int v) {
    Operand o;
    if (gradient_of[size_t(v)] < 0) {
      gradient_of[size_t(v)] = arena(value(v).shape, plan.dtype);
    }
    o.buffer = gradient_of[size_t(v)];
    const bool in_span = plan.buffers[size_t(o.buffer)].space == Space::grad;
    o.view = in_span ? value(v).param->view(nullptr) : dense_view(value(v).shape);
    return o;
  }

  void prepare_wrt() {
    for (size_t k = 0; k < wrt.size(); ++k) {
      const int v = wrt[k];
      const Value& x = value(v);
      Plan::Wanted w;
      if (x.kind == Kind::param) {
        w.param = x.param;
        if (x.param->sparse) {
          plan.wrt.push_back(w);
          continue;
        }
        if (gradient_of[size_t(v)] < 0)
          gradient_of[size_t(v)] = add_buffer(Space::grad, x.param->extent() * size_of(plan.dtype), int(k));
        param_index(x.param);
      } else if (gradient_of[size_t(v)] < 0) {
        gradient_of[size_t(v)] = arena(x.shape, plan.dtype);
        plan.buffers[size_t(gradient_of[size_t(v)])].persistent = true;
      }
      w.gradient = gradient_operand(v);
      plan.wrt.push_back(w);
      if (v == loss) {
        Operand one;
        one.buffer = plan.one;
        one.view = dense_view(x.shape);
        copy_item("_copy", one, w.gradient, "gradient of the loss itself");
      }
      if (!reached[size_t(v)]) {
        // A padded span is cleared as a whole when it is allocated; only the logical elements are written here.
        copy_item("_zero", Operand{}, w.gradient, "gradient of " + graph.describe(v));
      }
    }
  }

  int wrt_number(int v) const {
    for (size_t k = 0; k < wrt.size(); ++k)
      if (wrt[k] == v) return int(k);
    return -1;
  }

  void backward_alias(const Node& n) {
    const int v = n.in[0], y = n.out[0];
    if (value(v).kind == Kind::param && value(v).param->sparse) throw ValueError(not_an_embedding(v, n));
    Operand from = gradient_operand(y);
    from.view = dense_view(value(v).shape);
    if (contributions[size_t(v)] == 1 && gradient_of[size_t(v)] < 0) {
      gradient_of[size_t(v)] = from.buffer;
      ++received[size_t(v)];
      return;
    }
    const bool first = received[size_t(v)]++ == 0;
    copy_item(first ? "_copy" : "_accumulate", from, gradient_operand(v), label(n) + " backward");
  }

  std::string not_an_embedding(int v, const Node& n) const {
    return graph.describe(v) + " has row-sparse gradients and can only be read by an embedding, not by " + label(n) +
           ": construct it with sparse=False";
  }

  int sparse_slot(int v, const Node& n, size_t k) {
    const Value& x = value(v);
    if (!n.sparse[k]) throw ValueError(not_an_embedding(v, n));
    if (received[size_t(v)]++)
      throw ValueError(graph.describe(v) +
                       " has row-sparse gradients and is read twice in one step: construct it with sparse=False");
    SparseSlot s;
    s.width = x.shape[1];
    s.capacity = 0;
    for (size_t i = 0; i < n.in.size(); ++i)
      if (value(n.in[i]).dtype == DType::i64) s.capacity = value(n.in[i]).shape.count();
    s.rows = add_buffer(Space::arena, s.capacity * 8);
    s.values = add_buffer(Space::arena, s.capacity * s.width * size_of(plan.dtype));
    plan.buffers[size_t(s.rows)].persistent = plan.buffers[size_t(s.values)].persistent = true;
    s.wrt = wrt_number(v);
    plan.sparse.push_back(s);
    plan.wrt[size_t(s.wrt)].sparse = int(plan.sparse.size()) - 1;
    return int(plan.sparse.size()) - 1;
  }

  void backward_item(int i) {
    Node& n = nodes[size_t(i)];
    bool any = false;
    for (size_t k = 0; k < n.in.size(); ++k) any = any || carries(n, k);
    if (!any) return;
    if (n.op && (n.op->flags & kAlias)) return backward_alias(n);

    Item item;
    item.pass = kBackward;
    item.host = n.host;
    item.plan = n.plan;
    item.op = n.name();
    item.label = label(n) + " backward";
    for (size_t k = 0; k < n.in.size(); ++k) {
      Operand o = n.any_layout[k] ? operand(n.in[k]) : dense_operand(n.in[k]);
      if (!n.keep_in[k]) o.buffer = -1;
      item.in.push_back(o);
    }
    for (size_t k = 0; k < n.out.size(); ++k) {
      Operand o = operand(n.out[k]);
      if (!n.keep_out[k]) o.buffer = -1;
      item.out.push_back(o);
      Operand d;
      d.view = dense_view(value(n.out[k]).shape);
      if (reached[size_t(n.out[k])]) d = gradient_operand(n.out[k]);
      item.d_out.push_back(d);
    }
    for (size_t k = 0; k < n.saved.size(); ++k) {
      Operand o;
      o.buffer = saved_of[size_t(i)][k];
      o.view = dense_view(n.saved[k].shape);
      item.saved.push_back(o);
    }

    struct After {
      bool first;
      Operand from, to;
    };
    std::vector<After> after;
    std::vector<int> seen;
    for (size_t k = 0; k < n.in.size(); ++k) {
      const int v = n.in[k];
      Operand slot;
      slot.view = dense_view(value(v).shape);
      bool add = false;
      int sparse = -1;
      if (carries(n, k)) {
        if (value(v).kind == Kind::param && value(v).param->sparse) {
          sparse = sparse_slot(v, n, k);
        } else {
          const bool first = received[size_t(v)]++ == 0;
          const bool again = std::find(seen.begin(), seen.end(), v) != seen.end();
          const Operand target = gradient_operand(v);
          const bool fits = n.any_layout[k] || plan.buffers[size_t(target.buffer)].space != Space::grad || !laid_out(v);
          if (fits && (first || (n.accumulates[k] && !again))) {
            slot = target;
            add = !first;
          } else {
            slot.buffer = arena(value(v).shape, plan.dtype);
            after.push_back({first, slot, target});
          }
          seen.push_back(v);
        }
      }
      item.d_in.push_back(slot);
      item.add.push_back(add);
      item.sparse.push_back(sparse);
      const bool ends_here = slot.buffer >= 0 && plan.buffers[size_t(slot.buffer)].space == Space::grad && !add &&
                             contributions[size_t(v)] == 1;
      item.early.push_back(n.updates[k] && ends_here ? wrt_number(v) : -1);
    }
    if (n.op) {
      item.fn = n.op->backward[plan.dtype == DType::f64];
      finish(item, n, kBackward);
    }
    plan.items.push_back(std::move(item));
    for (const After& a : after) copy_item(a.first ? "_copy" : "_accumulate", a.from, a.to, label(n) + " backward");
  }

  // A parameter may be updated where its gradient ends only if nobody reads the old one afterwards.
  void settle_early_updates() {
    auto reads = [&](const Operand& o, int index) {
      return o.buffer >= 0 && plan.buffers[size_t(o.buffer)].space == Space::param &&
             plan.buffers[size_t(o.buffer)].index == index;
    };
    for (size_t i = 0; i < plan.items.size(); ++i)
      for (int& k : plan.items[i].early) {
        if (k < 0) continue;
        const int index = param_index(plan.wrt[size_t(k)].param);
        bool read = false;
        for (size_t later = i + 1; later < plan.items.size(); ++later)
          for (const Operand& o : plan.items[later].in) read = read || reads(o, index);
        for (const Operand& o : plan.outputs) read = read || reads(o, index);
        for (const auto& [value, gradient] : plan.kept) read = read || reads(value, index);
        if (read) k = -1;
      }
  }

  void find_judged() {
    const int n = int(plan.jobs.size());
    int written = -1, early = n;
    for (int j = 0; j < n; ++j) {
      const Item& item = plan.items[size_t(plan.jobs[size_t(j)].item)];
      for (const Operand& o : item.out)
        if (item.pass == kForward && o.buffer == plan.outputs[0].buffer) written = j;
      for (int k : item.early)
        if (k >= 0) early = std::min(early, j);
    }
    for (int j = written + 1; j < n && j <= early && plan.judged < 0; ++j)
      if (plan.jobs[size_t(j)].barrier) plan.judged = j;
  }

  // -- all of it
  // ---------------------------------------------------------------------------------------------------------

  void build() {
    plan.dtype = graph.dtype;
    plan.isa = graph.level->name;
    plan.constants = graph.constants;
    for (int v : outputs) graph.value(v);
    for (int v : wrt) graph.value(v);
    for (int v : keep) graph.value(v);
    if (loss >= 0) graph.value(loss);
    const size_t n = graph.values.size();
    buffer_of.assign(n, -1);
    dense_of.assign(n, -1);
    gradient_of.assign(n, -1);
    contributions.assign(n, 0);
    received.assign(n, 0);
    wanted.assign(n, 0);
    reached.assign(n, 0);
    find_live();
    for (const IntRange& r : graph.ranges)
      if (live[size_t(r.node)]) plan.ranges.push_back(r);
    absorb();
    saved_of.resize(nodes.size());

    for (int v : graph.inputs) {
      plan.inputs.push_back(operand(v));
      plan.input_types.push_back(value(v).dtype);
      plan.input_names.push_back(graph.describe(v));
    }
    if (loss >= 0) find_gradients();
    for (size_t i = 0; i < nodes.size(); ++i)
      if (live[i]) forward_item(int(i));

    if (loss >= 0) {
      // The gradient of the loss itself is one, written before every run.
      plan.one = arena(value(loss).shape, plan.dtype);
      plan.buffers[size_t(plan.one)].persistent = true;
      if (wrt_number(loss) < 0) gradient_of[size_t(loss)] = plan.one;
      prepare_wrt();
      gradient_of[size_t(loss)] = plan.one;
      for (size_t i = nodes.size(); i-- > 0;)
        if (live[i] && reached_node(nodes[i])) backward_item(int(i));
      for (const Assignment& a : graph.assignments) {
        Plan::Commit c;
        c.target = value(a.target).param;
        if (a.value >= 0) {
          c.value = dense_operand(a.value);
          plan.buffers[size_t(c.value.buffer)].persistent = true;
        }
        plan.commits.push_back(c);
      }
    }
    for (int v : outputs) {
      plan.outputs.push_back(dense_operand(v));
      plan.output_types.push_back(value(v).dtype);
      plan.buffers[size_t(plan.outputs.back().buffer)].persistent = true;
    }
    for (int v : keep) {
      Operand value_operand = dense_operand(v), gradient;
      plan.buffers[size_t(value_operand.buffer)].persistent = true;
      if (loss >= 0 && reached[size_t(v)] && gradient_of[size_t(v)] >= 0) {
        gradient = gradient_operand(v);
        plan.buffers[size_t(gradient.buffer)].persistent = true;
      }
      plan.kept.push_back({value_operand, gradient});
    }
    settle_early_updates();
    place_buffers(plan);
    schedule_jobs(plan);
    if (!plan.outputs.empty()) find_judged();
  }
};

Plan::Plan(const Graph& graph, std::vector<int> outputs_, int loss, std::vector<int> wrt_, std::vector<int> keep_,
           bool guarded_)
    : guarded(guarded_) {
  Builder b{*this,
            graph,
            std::move(outputs_),
            std::move(wrt_),
            std::move(keep_),
            loss,
            {},
            {},
            {},
            {},
            {},
            {},
            {},
            {},
            {},
            {},
            {},
            {}};
  b.build();
}

}  // namespace pbp
