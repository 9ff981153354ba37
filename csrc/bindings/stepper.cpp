// Stepper: training steps.
#include "../core/stepper.h"

#include <mutex>

#include "../core/enter.h"
#include "measure.h"
#include "results.h"

namespace pbp {
namespace {

using Hyper = std::vector<std::map<std::string, double>>;

// The stepper for this call. The lock is taken without the GIL, so that a step waiting for another one never blocks
// Python. A step that is called from inside itself (by an op written in Python) would wait for ever and is refused; so
// is one that another thread had begun when this process was forked, unless the call overwrites its state.
class Guard {
 public:
  explicit Guard(Stepper& s, bool overwrites = false) : lock_(s.mutex, std::defer_lock) {
    if (s.mutex.mine()) throw ValueError("this training step is running: it cannot be used from inside its own ops");
    if (!lock_.try_lock()) {
      py::gil_scoped_release release;
      lock_.lock();
    }
    if (s.mutex.torn() && !overwrites)
      throw std::runtime_error(
          "this training was in the middle of a step, on another thread, when the process was forked, so the child's "
          "copy of it is half a step: load a checkpoint into it, or fork between steps");
  }

 private:
  std::unique_lock<ForkMutex> lock_;
};

template <class F>
auto without_gil(Stepper& s, F f) {
  try {
    py::gil_scoped_release release;
    s.failed = true;  // until f returns
    auto result = f();
    s.failed = false;
    return result;
  } catch (const HostError&) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "the feeder failed");
    throw py::error_already_set();
  }
}

py::object refused;  // the class of the error

// None, or why the last batch was refused, its loss, the batches lost with it, and its random position.
py::object describe(const Refusal& r) {
  if (r.why == Refused::no) return py::none();
  const char* const why[] = {"", "loss", "gradient", "piece"};
  return py::make_tuple(why[int(r.why)], r.loss, r.batches, r.state.seed, r.state.step, r.state.row0);
}

double accepted(const Stepper& s, double loss) {
  const Refusal& r = s.refusal();
  if (r.why == Refused::no) return loss;
  const char* const what = r.why == Refused::loss ? "the loss is not finite" : "the gradients are not finite";
  PyErr_SetObject(refused.ptr(), py::make_tuple(what, describe(r)).ptr());
  throw py::error_already_set();
}

Binding& prepared(Stepper& s, const std::shared_ptr<Program>& program, Hold& hold) {
  return enter<py::gil_scoped_release>(hold, true, [&]() -> Binding& { return s.prepare(program); });
}

double backward(Stepper& s, const std::shared_ptr<Program>& program, const py::tuple& inputs) {
  const Guard guard(s);
  s.failed = false;
  Hold hold;
  Binding& b = prepared(s, program, hold);
  fill_inputs(*program, b, inputs);
  return accepted(s, without_gil(s, [&] { return s.backward(b); }));
}

double step(Stepper& s, const std::shared_ptr<Program>& program, const py::tuple& inputs, double lr) {
  const Guard guard(s);
  s.failed = false;
  Hold hold;
  Binding& b = prepared(s, program, hold);
  fill_inputs(*program, b, inputs);
  return accepted(s, without_gil(s, [&] { return s.step(b, lr); }));
}

void update(Stepper& s, double lr) {
  const Guard guard(s);
  std::vector<GateUse> uses;
  Hold hold;
  enter<py::gil_scoped_release>(hold, true, s.params(), uses);
  without_gil(s, [&] {
    s.update(lr);
    return 0;
  });
  accepted(s, 0);
}

py::object refusal(Stepper& s) {
  const Guard guard(s);
  return describe(s.refusal());
}

const pbp_feeder& taken(const py::capsule& feeder, const Plan& plan, int64_t batch_rows) {
  if (std::string(feeder.name() ? feeder.name() : "") != PBP_FEEDER_CAPSULE)
    throw TypeError("run expects a feeder capsule");
  for (const Operand& o : plan.inputs)
    if (o.view.rank() && o.view.dim(0) != batch_rows)
      throw ValueError("run feeds " + std::to_string(batch_rows) + " rows a batch, but an input of the program has " +
                       std::to_string(o.view.dim(0)));
  return *static_cast<const pbp_feeder*>(feeder.get_pointer());
}

py::tuple profile(Stepper& s, const std::shared_ptr<Program>& program, const py::capsule& feeder, int64_t batch_rows,
                  const py::array_t<double, py::array::c_style>& lrs) {
  const pbp_feeder& f = taken(feeder, *program->plan, batch_rows);
  if (f.needs_gil) throw TypeError("profile expects a feeder that needs no Python");
  if (lrs.size() < 1) throw ValueError("lrs expects one learning rate a step, and at least one");
  const Guard guard(s);
  Hold hold;
  Binding& b = prepared(s, program, hold);
  Timeline timeline(*program->plan, lrs.size(), s.threads_for(program.get(), true));
  without_gil(s, [&] {
    s.profile(b, f, batch_rows, lrs.data(), timeline);
    return 0;
  });
  return read_timeline(*program->plan, timeline);
}

int64_t run(Stepper& s, const std::shared_ptr<Program>& program, const py::capsule& feeder, int64_t first_row,
            int64_t batch_rows, int64_t batches, const py::array_t<double, py::array::c_style>& lrs, double seconds,
            py::array_t<double, py::array::c_style>& results) {
  const Plan& plan = *program->plan;
  const auto* f = &taken(feeder, plan, batch_rows);
  for (const Operand& o : plan.outputs)
    if (o.view.count() != 1) throw ValueError("run expects a program whose outputs are scalars");
  if (lrs.size() < batches) throw ValueError("lrs expects one learning rate a batch");
  if (results.ndim() != 2 || results.shape(0) < batches || results.shape(1) != int64_t(plan.outputs.size()))
    throw ValueError("results expects shape (batches, outputs)");
  if (batches <= 0) return 0;
  const Guard guard(s);
  Hold hold;
  Binding& b = prepared(s, program, hold);
  const double* lr = lrs.data();
  double* to = results.mutable_data();
  if (f->needs_gil) {
    struct Locked {
      const pbp_feeder* inner;
      static int fill(void* context, int64_t first, int64_t rows, void* const* buffers) {
        py::gil_scoped_acquire gil;
        const pbp_feeder* inner = static_cast<Locked*>(context)->inner;
        return inner->fill(inner->context, first, rows, buffers);
      }
    } locked{f};
    const pbp_feeder with_gil{&Locked::fill, &locked, 0, nullptr};
    return without_gil(s, [&] { return s.run(b, with_gil, first_row, batch_rows, batches, lr, seconds, to, hold); });
  }
  return without_gil(s, [&] { return s.run(b, *f, first_row, batch_rows, batches, lr, seconds, to, hold); });
}

template <class T>
void set(Stepper& s, T& member, T value) {
  const Guard guard(s, true);
  member = value;
}

void zero_grad(Stepper& s) {
  const Guard guard(s, true);
  s.zero_grad();
}

void set_hyper(Stepper& s, const Hyper& hyper) {
  const Guard guard(s, true);
  s.set_hyper(hyper);
}

py::object read_dense(const Stepper& s, size_t k, const void* from, double scale) {
  const Param& p = *s.params()[k];
  py::array a = new_array(p.dtype, p.shape);
  to_logical(p, from, a.mutable_data());
  if (scale != 1) a = py::array(a * py::float_(scale)).attr("astype")(numpy_dtype(p.dtype));
  return a;
}

py::list grads(Stepper& s) {
  const Guard guard(s);
  if (!s.last()) throw ValueError("grads was called before any backward");
  py::list list;
  for (size_t k = 0; k < s.params().size(); ++k) {
    const Param& p = *s.params()[k];
    const int slot = s.last()->plan().wrt[k].sparse;
    if (slot >= 0) {
      list.append(read_sparse(s.last()->sparse(slot), p.dtype));
    } else if (p.sparse) {
      py::array a = new_array(p.dtype, p.shape);
      std::memset(a.mutable_data(), 0, size_t(a.nbytes()));
      list.append(a);
    } else {
      list.append(read_dense(s, k, s.gradient(k), s.gradient_scale()));
    }
  }
  return list;
}

py::list outputs(Stepper& s) {
  const Guard guard(s);
  if (!s.last()) throw ValueError("outputs was called before any step");
  return read_outputs(*s.last());
}

py::dict state(Stepper& s) {
  const Guard guard(s);
  py::dict d;
  for (size_t i = 0; s.rule().states[i]; ++i) {
    py::list list;
    for (size_t k = 0; k < s.params().size(); ++k) list.append(read_dense(s, k, s.state(i, k), 1));
    d[s.rule().states[i]] = list;
  }
  return d;
}

void load_state(Stepper& s, const py::dict& d) {
  const Guard guard(s, true);
  std::vector<std::vector<py::array>> all;
  for (size_t i = 0; s.rule().states[i]; ++i) {
    const char* name = s.rule().states[i];
    if (!d.contains(name)) throw ValueError(std::string("the optimizer state lacks ") + name);
    py::list list = d[name];
    if (list.size() != s.params().size())
      throw ValueError(std::string("the optimizer state ") + name + " holds " + std::to_string(list.size()) +
                       " arrays, the model has " + std::to_string(s.params().size()) + " parameters");
    all.emplace_back();
    for (size_t k = 0; k < s.params().size(); ++k) {
      const Param& p = *s.params()[k];
      all.back().push_back(as_dtype(list[k], p.dtype, name));
      if (!shape_of(all.back().back()).same(p.shape))
        throw ValueError(std::string("the optimizer state ") + name + " of parameter " + std::to_string(k) +
                         " has shape " + to_text(shape_of(all.back().back())) + ", expected " + to_text(p.shape));
    }
  }
  for (size_t i = 0; i < all.size(); ++i)
    for (size_t k = 0; k < s.params().size(); ++k) from_logical(*s.params()[k], all[i][k].data(), s.state(i, k));
  s.zero_grad();
  s.mutex.mend();
}

}  // namespace

void bind_stepper(py::module_& m) {
  refused = py::reinterpret_steal<py::object>(PyErr_NewExceptionWithDoc(
      "pybackprop._core.Refused", "A batch was not applied: args are a message and what `Stepper.refusal` says.",
      PyExc_FloatingPointError, nullptr));
  m.attr("Refused") = refused;
  py::class_<Stepper, std::shared_ptr<Stepper>>(m, "Stepper", "Backward, reduce, update over flat spans.")
      .def(py::init([](const std::string& rule, std::vector<ParamPtr> params, std::vector<int> groups,
                       const Hyper& hyper, std::optional<double> clip_norm, std::optional<double> clip_value,
                       int accumulate, std::optional<std::string> isa, std::optional<int> threads) {
             if (threads && *threads < 1) throw ValueError("threads must be at least 1");
             if ((clip_norm && !(*clip_norm > 0)) || (clip_value && !(*clip_value > 0)))
               throw ValueError("clip_norm and clip_value must be positive");
             return std::make_shared<Stepper>(StepperOptions{rule, clip_norm.value_or(0), clip_value.value_or(0),
                                                             accumulate, isa.value_or(""), threads.value_or(0)},
                                              std::move(params), std::move(groups), hyper);
           }),
           py::arg("rule"), py::arg("params"), py::arg("groups"), py::arg("hyper"), py::arg("clip_norm") = py::none(),
           py::arg("clip_value") = py::none(), py::arg("accumulate") = 1, py::arg("isa") = py::none(),
           py::arg("threads") = py::none())
      .def("backward", &backward, py::arg("program"), py::arg("inputs"), "Gradients of one batch; returns the loss.")
      .def("update", &update, py::arg("lr"), "Apply the gradients.")
      .def("step", &step, py::arg("program"), py::arg("inputs"), py::arg("lr"),
           "Backward and, when it is due, update. Refused if it was not applied.")
      .def("run", &run, py::arg("program"), py::arg("feeder"), py::arg("first_row"), py::arg("batch_rows"),
           py::arg("batches"), py::arg("lrs"), py::arg("seconds"), py::arg("results"),
           "Many batches in one call, up to one that is refused; returns how many were done, that one included.")
      .def("profile", &profile, py::arg("program"), py::arg("feeder"), py::arg("batch_rows"), py::arg("lrs"),
           "Trains on the feeder's first batches, one a learning rate, and times their jobs; returns what "
           "Program.profile does.")
      .def_property_readonly(
          "refusal", &refusal,
          "None, or (why, loss, batches, seed, step, row0) of the last batch if it was not applied: \"loss\", "
          "\"gradient\", or \"piece\" if parameters with finite gradients have been updated.")
      .def("outputs", &outputs, "The program's outputs at the last backward.")
      .def("grads", &grads, "Gradients aligned with the parameters; (rows, values) where they are row-sparse.")
      .def("zero_grad", &zero_grad, "Forget all gradients and a begun accumulation.")
      .def("set_hyper", &set_hyper, py::arg("hyper"), "New numbers for every group, from the next update on.")
      .def("state", &state, "Optimizer state: name -> arrays aligned with the parameters.")
      .def("load_state", &load_state, py::arg("state"))
      .def_property(
          "steps", [](const Stepper& s) { return s.steps; }, [](Stepper& s, int64_t v) { set(s, s.steps, v); },
          "Updates done.")
      .def_property(
          "micro", [](const Stepper& s) { return s.micro; }, [](Stepper& s, int64_t v) { set(s, s.micro, v); },
          "Batches in the accumulation that has begun.")
      .def_property_readonly(
          "seen", [](const Stepper& s) { return s.seen; }, "Batches run, refused ones included.")
      .def_property(
          "seed", [](const Stepper& s) { return s.seed; }, [](Stepper& s, uint64_t v) { set(s, s.seed, v); })
      .def_property_readonly(
          "failed", [](const Stepper& s) { return s.failed; },
          "Whether the last call failed after its inputs had been accepted.")
      .def_readonly("threads_used", &Stepper::threads_used, "Threads that took part in the last run.");
}

}  // namespace pbp
