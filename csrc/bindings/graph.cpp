// Param, gather, Graph, and ops written in Python.
#include "../core/graph.h"

#include "../core/enter.h"
#include "arrays.h"

namespace pbp {
namespace {

// A Python object with forward(*inputs) and backward(inputs, outputs, d_outputs). It is handed copies: it may keep
// them, and the arena is written again.
class PythonOp : public HostOp {
 public:
  PythonOp(py::object object, std::vector<DType> in, DType dtype, std::string where)
      : object_(std::move(object)), in_(std::move(in)), dtype_(dtype), where_(std::move(where)) {}
  ~PythonOp() override {
    py::gil_scoped_acquire gil;
    object_ = py::object();
  }

  void forward(const std::vector<View>& in, const std::vector<View>& out) override {
    call([&] { store(object_.attr("forward")(*inputs(in)), out, "forward", false); });
  }
  void backward(const std::vector<View>& in, const std::vector<View>& out, const std::vector<View>& d_out,
                const std::vector<View>& d_in) override {
    call([&] { store(object_.attr("backward")(inputs(in), list(out), list(d_out)), d_in, "backward", true); });
  }

 private:
  template <class F>
  void call(F f) {
    py::gil_scoped_acquire gil;
    try {
      f();
    } catch (py::error_already_set& e) {
      e.restore();
      throw HostError();
    } catch (const TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
      throw HostError();
    } catch (const ValueError& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
      throw HostError();
    }
  }
  py::tuple inputs(const std::vector<View>& views) const {
    py::tuple t(views.size());
    for (size_t i = 0; i < views.size(); ++i) t[i] = copy_out(in_[i], views[i].shape, views[i].data);
    return t;
  }
  py::tuple list(const std::vector<View>& views) const {
    py::tuple t(views.size());
    for (size_t i = 0; i < views.size(); ++i)
      t[i] = views[i].data ? py::object(copy_out(dtype_, views[i].shape, views[i].data)) : py::object(py::none());
    return t;
  }
  void store(py::object result, const std::vector<View>& to, const char* method, bool optional) const {
    const std::string what = "[function] " + where_ + (where_.empty() ? "" : ": ") + method;
    py::list items;
    if (py::isinstance<py::tuple>(result) || py::isinstance<py::list>(result))
      items = py::list(result);
    else
      items.append(result);
    if (items.size() != to.size())
      throw ValueError(what + " should return " + std::to_string(to.size()) + " arrays, got " +
                       std::to_string(items.size()));
    for (size_t i = 0; i < to.size(); ++i) {
      if (!to[i].data) continue;
      if (optional && py::object(items[i]).is_none())
        std::memset(to[i].data, 0, size_t(to[i].count() * size_of(dtype_)));
      else
        copy_in(items[i], dtype_, to[i].shape, to[i].data, what + ", result " + std::to_string(i) + ",");
    }
  }

  py::object object_;
  std::vector<DType> in_;
  DType dtype_;
  std::string where_;
};

ParamPtr make_param(const py::array& array, const std::string& layout, bool sparse) {
  const char kind = array.dtype().kind();
  DType t = DType::f32;
  if (kind == 'f') {
    t = array.itemsize() == 8 ? DType::f64 : DType::f32;
  } else if (kind == 'i' || kind == 'u') {
    t = DType::i64;
  } else {
    throw TypeError("a parameter holds real numbers, got dtype " + std::string(py::str(array.dtype())));
  }
  if (layout != "dense" && layout != "linear")
    throw ValueError("layout must be \"dense\" or \"linear\", got \"" + layout + "\"");
  auto p = std::make_shared<Param>(t, shape_of(array), layout == "linear" ? Layout::linear : Layout::dense, sparse);
  p->write(as_dtype(array, t, "a parameter").data());
  return p;
}

std::vector<Attr> attributes(const py::kwargs& given) {
  std::vector<Attr> attrs;
  for (auto item : given) {
    const std::string name = py::str(item.first);
    py::handle v = item.second;
    if (py::isinstance<py::bool_>(v)) {
      attrs.push_back({name, int64_t(v.cast<bool>())});
    } else if (py::isinstance<py::int_>(v) || PyIndex_Check(v.ptr())) {
      attrs.push_back({name, py::int_(py::reinterpret_borrow<py::object>(v)).cast<int64_t>()});
    } else if (py::isinstance<py::float_>(v)) {
      attrs.push_back({name, v.cast<double>()});
    } else if (py::isinstance<py::tuple>(v) || py::isinstance<py::list>(v)) {
      bool integers = true;
      for (py::handle x : v) integers = integers && (py::isinstance<py::int_>(x) || PyIndex_Check(x.ptr()));
      if (integers) {
        std::vector<int64_t> list;
        for (py::handle x : v) list.push_back(py::int_(py::reinterpret_borrow<py::object>(x)).cast<int64_t>());
        attrs.push_back({name, list});
      } else {
        std::vector<double> list;
        for (py::handle x : v) list.push_back(py::float_(py::reinterpret_borrow<py::object>(x)).cast<double>());
        attrs.push_back({name, list});
      }
    } else if (py::hasattr(v, "__float__")) {
      attrs.push_back({name, py::float_(py::reinterpret_borrow<py::object>(v)).cast<double>()});
    } else {
      throw TypeError("option " + name + " expects a number or a list of numbers, got " +
                      std::string(py::str(py::type::of(v).attr("__name__"))));
    }
  }
  return attrs;
}

py::tuple ids(const std::vector<int>& values) {
  py::tuple t(values.size());
  for (size_t i = 0; i < values.size(); ++i) t[i] = py::int_(values[i]);
  return t;
}

py::array copied(const Param& p) {
  py::array a = new_array(p.dtype, p.shape);
  p.read(a.mutable_data());
  return a;
}

py::list read_all(const std::vector<ParamPtr>& params) {
  std::vector<GateUse> uses;
  Hold hold;
  enter<py::gil_scoped_release>(hold, false, params, uses);
  py::list list;
  for (const ParamPtr& p : params) list.append(copied(*p));
  return list;
}

void write_all(const std::vector<ParamPtr>& params, const std::vector<py::object>& given) {
  if (given.size() != params.size()) throw ValueError("write_all expects one array a parameter");
  std::vector<py::array> arrays;
  for (size_t k = 0; k < params.size(); ++k) {
    arrays.push_back(as_dtype(given[k], params[k]->dtype, "a parameter"));
    if (!shape_of(arrays[k]).same(params[k]->shape))
      throw ValueError("the parameter has shape " + to_text(params[k]->shape) + ", got an array of shape " +
                       to_text(shape_of(arrays[k])));
  }
  std::vector<GateUse> uses;
  Hold hold;
  enter<py::gil_scoped_release>(hold, true, params, uses);
  for (size_t k = 0; k < params.size(); ++k) params[k]->write(arrays[k].data());
}

void gather_all(const std::vector<ParamPtr>& params, const std::vector<ParamPtr>& beside) {
  std::vector<ParamPtr> all = params;
  all.insert(all.end(), beside.begin(), beside.end());
  std::vector<GateUse> uses;
  Hold hold;
  enter<py::gil_scoped_release>(hold, true, all, uses);
  gather(params, beside);
}

class Reading {
 public:
  explicit Reading(std::vector<ParamPtr> params) : params_(std::move(params)) {}
  void begin() { enter<py::gil_scoped_release>(hold_, false, params_, uses_); }
  void end() { hold_.release(); }

 private:
  std::vector<ParamPtr> params_;
  std::vector<GateUse> uses_;
  Hold hold_;
};

}  // namespace

void bind_graph(py::module_& m) {
  py::class_<Param, ParamPtr>(m, "Param", "A parameter or buffer: a handle onto storage that may move.")
      .def(py::init(&make_param), py::arg("array"), py::arg("layout") = "dense", py::arg("sparse") = false)
      .def_property_readonly("shape", [](const Param& p) { return shape_tuple(p.shape); })
      .def_property_readonly("dtype", [](const Param& p) { return std::string(dtype_name(p.dtype)); })
      .def_property_readonly(
          "layout", [](const Param& p) { return std::string(p.layout == Layout::linear ? "linear" : "dense"); })
      .def_property_readonly("sparse", [](const Param& p) { return p.sparse; })
      .def(
          "numpy",
          [](const ParamPtr& p) {
            std::vector<GateUse> uses;
            Hold hold;
            enter<py::gil_scoped_release>(hold, false, {p}, uses);
            return copied(*p);
          },
          "A copy in logical order.")
      .def(
          "assign", [](const ParamPtr& p, const py::object& array) { write_all({p}, {array}); }, py::arg("array"),
          "Write new contents of the same shape.");

  m.def("read_all", &read_all, py::arg("params"), "Copies of all, of one moment: between two steps of a training.");
  m.def("write_all", &write_all, py::arg("params"), py::arg("arrays"),
        "Write all of them, between two steps of a training; nothing if one does not fit.");
  m.def("gather", &gather_all, py::arg("params"), py::arg("beside") = std::vector<ParamPtr>{},
        "Put the parameters' storage into one flat span, where a training step finds them; handles stay valid. Others "
        "beside them are changed by the same steps.");
  py::class_<Reading>(m, "Reading", "Within `with`, no training changes these parameters; other threads read them too.")
      .def(py::init<std::vector<ParamPtr>>(), py::arg("params"))
      .def("__enter__", &Reading::begin)
      .def("__exit__", [](Reading& r, const py::args&) { r.end(); });

  py::class_<Graph, std::shared_ptr<Graph>>(m, "Graph",
                                            "Values and the nodes between them, in the order they were traced.")
      .def(py::init([](const std::string& dtype, bool training, const std::optional<std::string>& isa) {
             return std::make_shared<Graph>(dtype_of(dtype), training, isa.value_or(""));
           }),
           py::arg("dtype") = "float32", py::arg("training") = false, py::arg("isa") = py::none())
      .def_property_readonly("dtype", [](const Graph& g) { return std::string(dtype_name(g.dtype)); })
      .def_property_readonly("training", [](const Graph& g) { return g.training; })
      .def_property_readonly("isa", [](const Graph& g) { return std::string(g.level->name); })
      .def(
          "input",
          [](Graph& g, const std::vector<int64_t>& shape, bool integer, const std::string& name) {
            return g.input(shape_of(shape), integer, name);
          },
          py::arg("shape"), py::arg("integer") = false, py::arg("name") = "", "A new input; returns its value id.")
      .def("param", &Graph::param, py::arg("param"), py::arg("name") = "", py::arg("trainable") = true,
           "The value id of a parameter; the same parameter gives the same id.")
      .def(
          "constant",
          [](Graph& g, const py::object& array) {
            const py::array given = py::array::ensure(array);
            if (!given) throw TypeError("a constant expects an array");
            const char kind = given.dtype().kind();
            const DType t = kind == 'i' || kind == 'u' ? DType::i64 : g.dtype;
            const py::array a = as_dtype(given, t, "a constant");
            return g.constant(shape_of(a), t, a.data());
          },
          py::arg("array"), "A constant; integer arrays are ids, all others numbers.")
      .def(
          "node",
          [](Graph& g, const std::string& op, const std::vector<int>& inputs, const std::string& where,
             const py::kwargs& attrs) { return ids(g.node(op, inputs, where, attributes(attrs))); },
          py::arg("op"), py::arg("inputs"), py::arg("where") = "", "Add an op; returns its outputs' value ids.")
      .def(
          "function",
          [](Graph& g, py::object object, const std::vector<int>& inputs,
             const std::vector<std::vector<int64_t>>& shapes, const std::string& where) {
            std::vector<Shape> s;
            for (const auto& dims : shapes) s.push_back(shape_of(dims));
            std::vector<DType> types;
            for (int v : inputs) types.push_back(g.value(v).dtype);
            return ids(
                g.host_node(std::make_shared<PythonOp>(std::move(object), types, g.dtype, where), inputs, s, where));
          },
          py::arg("object"), py::arg("inputs"), py::arg("shapes"), py::arg("where") = "",
          "Add an op written in Python.")
      .def("assign", &Graph::assign, py::arg("target"), py::arg("value"),
           "After a successful training step the buffer takes the value's contents.")
      .def("latest", &Graph::latest, py::arg("target"),
           "The value assigned to a buffer so far, else the buffer itself.")
      .def("increment", &Graph::increment, py::arg("target"),
           "After a successful training step the counter goes up by one.")
      .def(
          "shape", [](const Graph& g, int v) { return shape_tuple(g.value(v).shape); }, py::arg("value"))
      .def(
          "is_integer", [](const Graph& g, int v) { return g.value(v).dtype == DType::i64; }, py::arg("value"))
      .def(
          "name", [](const Graph& g, int v) { return g.value(v).name; }, py::arg("value"))
      .def(
          "set_name", [](Graph& g, int v, const std::string& name) { g.value(v).name = name; }, py::arg("value"),
          py::arg("name"))
      .def("describe", &Graph::describe, py::arg("value"), "How messages call this value.")
      .def("count_nodes", [](const Graph& g) { return g.nodes.size(); });
}

}  // namespace pbp
