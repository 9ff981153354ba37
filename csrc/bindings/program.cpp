// Program: an immutable plan, run on arrays.
#include "../core/program.h"

#include "../core/enter.h"
#include "measure.h"
#include "results.h"

namespace pbp {
namespace {
constexpr int64_t kWorthBorrowing = 8192;  // bytes; copying less is quicker than going round
}

void fill_inputs(const Program& program, Binding& b, const py::tuple& inputs) {
  const Plan& plan = *program.plan;
  if (inputs.size() != plan.inputs.size())
    throw ValueError("the program takes " + std::to_string(plan.inputs.size()) + " inputs, got " +
                     std::to_string(inputs.size()));
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Operand& o = plan.inputs[i];
    const DType t = plan.input_types[i];
    const int64_t bytes = o.view.count() * size_of(t);
    const py::handle object = inputs[i];
    // The usual case without a single Python object made: the right type, contiguous, the right shape.
    bool direct = false;
    if (py::array::check_(object)) {
      const auto* a = py::detail::array_proxy(object.ptr());
      constexpr int kPlain = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
      direct = a->nd == o.view.rank() && (a->flags & kPlain) == kPlain && is_native(a->descr, t);
      for (int d = 0; direct && d < a->nd; ++d) direct = a->dimensions[d] == o.view.dim(d);
      // Integers are checked below and must not change after that.
      if (direct && t != DType::i64 && bytes >= kWorthBorrowing) {
        b.place_input(int(i), a->data);
        continue;
      }
    }
    b.place_input(int(i), nullptr);
    void* const to = b.input(int(i));
    if (direct)
      std::memcpy(to, py::detail::array_proxy(object.ptr())->data, size_t(bytes));
    else
      copy_in(object, t, o.view.shape, to, plan.input_names[i]);
    if (t == DType::i64) program.check_ints(int(i), static_cast<const int64_t*>(to), o.view.count());
  }
}

bool is_native(const void* descr, DType t) {
  static const py::object f32 = numpy_dtype(DType::f32), f64 = numpy_dtype(DType::f64), i64 = numpy_dtype(DType::i64);
  return descr == (t == DType::f32 ? f32 : t == DType::f64 ? f64 : i64).ptr();
}

py::list read_outputs(const Binding& b) {
  const Plan& plan = b.plan();
  py::list results;
  for (size_t i = 0; i < plan.outputs.size(); ++i)
    results.append(copy_out(plan.output_types[i], plan.outputs[i].view.shape, b.address(plan.outputs[i])));
  return results;
}

py::object read_sparse(const SparseRows& r, DType t) {
  Shape rows, values;
  rows.push(r.count);
  values.push(r.count);
  values.push(r.width);
  return py::make_tuple(copy_out(DType::i64, rows, r.rows), copy_out(t, values, r.values));
}

namespace {

py::object read_gradient(const Binding& b, const Plan::Wanted& w) {
  const Plan& plan = b.plan();
  if (w.sparse >= 0) return read_sparse(b.sparse(w.sparse), plan.dtype);
  if (!w.param) return copy_out(plan.dtype, w.gradient.view.shape, b.address(w.gradient));
  py::array a = new_array(plan.dtype, w.param->shape);
  if (w.param->sparse)  // not reached by the loss
    std::memset(a.mutable_data(), 0, size_t(a.nbytes()));
  else
    to_logical(*w.param, b.address(w.gradient), a.mutable_data());
  return a;
}

py::tuple run(Program& program, const py::tuple& inputs, uint64_t seed, uint64_t step, int64_t row0) {
  Program::Lease lease(program);
  Binding& b = *lease.binding;
  const int wanted = program.threads_for(false);
  Hold hold;
  enter<py::gil_scoped_release>(hold, false, [&]() -> Binding& {
    b.rebind(wanted);
    return b;
  });
  b.poison();
  fill_inputs(program, b, inputs);
  b.state = RunState{seed, step, row0};
  int took_part = 1;
  try {
    py::gil_scoped_release release;
    const CoresInUse cores(wanted, wanted, program.forced_threads > 0);
    took_part = b.run(cores.threads);
  } catch (const HostError&) {
    if (!PyErr_Occurred()) PyErr_SetString(PyExc_RuntimeError, "an op of the host failed");
    throw py::error_already_set();
  }
  b.check_guards();
  program.threads_used = took_part;
  const Plan& plan = *program.plan;
  py::list gradients, kept;
  for (const Plan::Wanted& w : plan.wrt) gradients.append(read_gradient(b, w));
  for (const auto& [value, gradient] : plan.kept) {
    py::object d = py::none();
    if (gradient.buffer >= 0) {
      Shape s = gradient.view.shape;
      const bool laid_out = plan.buffers[size_t(gradient.buffer)].space == Space::grad;
      d = laid_out ? read_gradient(b, plan.wrt[size_t(plan.buffers[size_t(gradient.buffer)].index)])
                   : py::object(copy_out(plan.dtype, s, b.address(gradient)));
    }
    kept.append(py::make_tuple(copy_out(plan.dtype, value.view.shape, b.address(value)), d));
  }
  return py::make_tuple(read_outputs(b), gradients, kept);
}

py::tuple profile(Program& program, const py::tuple& inputs, int64_t runs, uint64_t seed, uint64_t step) {
  if (runs < 1) throw ValueError("runs must be at least 1, got " + std::to_string(runs));
  Program::Lease lease(program);
  Binding& b = *lease.binding;
  const int threads = program.threads_for(true);
  Hold hold;
  enter<py::gil_scoped_release>(hold, false, [&]() -> Binding& {
    b.rebind(threads);
    return b;
  });
  fill_inputs(program, b, inputs);
  b.state = RunState{seed, step, 0};
  Timeline timeline(*program.plan, runs, threads);
  {
    py::gil_scoped_release release;
    time_runs(b, timeline);
  }
  program.threads_used = timeline.threads;
  return read_timeline(*program.plan, timeline);
}

py::list input_ranges(const Program& p) {
  py::list list;
  for (const IntRange& r : p.plan->ranges)
    list.append(py::make_tuple(r.input, r.low, r.high, r.exempt, r.what, r.where));
  return list;
}

}  // namespace

void bind_program(py::module_& m) {
  py::class_<Program, std::shared_ptr<Program>>(m, "Program", "An immutable plan of a graph; runs on arrays.")
      .def(py::init([](const Graph& graph, std::vector<int> outputs, std::optional<int> loss, std::vector<int> wrt,
                       std::vector<int> keep, std::optional<int> threads, bool guarded) {
             if (threads && *threads < 1) throw ValueError("threads must be at least 1");
             return std::make_shared<Program>(graph, std::move(outputs), loss.value_or(-1), std::move(wrt),
                                              std::move(keep), threads.value_or(0), guarded);
           }),
           py::arg("graph"), py::arg("outputs"), py::arg("loss") = py::none(), py::arg("wrt") = std::vector<int>{},
           py::arg("keep") = std::vector<int>{}, py::arg("threads") = py::none(), py::arg("guarded") = false)
      .def("run", &run, py::arg("inputs"), py::arg("seed") = 0, py::arg("step") = 0, py::arg("row0") = 0,
           "Returns (outputs, gradients in the order of wrt, [(value, gradient or None) of keep]).")
      .def("profile", &profile, py::arg("inputs"), py::arg("runs"), py::arg("seed") = 0, py::arg("step") = 0,
           "Times the jobs of so many runs in a row. Returns (jobs, work, wait): a dict a job, and seconds (runs, "
           "threads, slots), where the slots are the jobs and then feeding, accumulating, update, rest.")
      .def("input_ranges", &input_ranges,
           "(input, low, high, exempt, what, where) of every integer input that indexes.")
      .def_property_readonly("arena_bytes", [](const Program& p) { return p.plan->arena_bytes; })
      .def_property_readonly("threads_used", [](const Program& p) { return p.threads_used.load(); })
      .def("describe", [](const Program& p) { return describe(*p.plan); }, "The jobs of a run, one a line.");
}

}  // namespace pbp
