// NumPy arrays to and from the core's shapes and types.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>

#include "../core/error.h"
#include "../core/graph.h"
#include "../core/op.h"

namespace py = pybind11;

namespace pbp {

inline py::dtype numpy_dtype(DType t) {
  switch (t) {
    case DType::f32:
      return py::dtype::of<float>();
    case DType::f64:
      return py::dtype::of<double>();
    case DType::i64:
      break;
  }
  return py::dtype::of<int64_t>();
}

inline const char* dtype_name(DType t) { return t == DType::f32 ? "float32" : t == DType::f64 ? "float64" : "int64"; }

inline DType dtype_of(const std::string& name) {
  if (name == "float32") return DType::f32;
  if (name == "float64") return DType::f64;
  if (name == "int64") return DType::i64;
  throw ValueError("dtype must be \"float32\" or \"float64\", got \"" + name + "\"");
}

inline Shape shape_of(const py::array& a) {
  if (a.ndim() > kMaxRank) throw ValueError("arrays have at most 8 dimensions, got " + std::to_string(a.ndim()));
  Shape s;
  for (py::ssize_t i = 0; i < a.ndim(); ++i) s.push(a.shape(i));
  return s;
}

inline Shape shape_of(const std::vector<int64_t>& dims) {
  if (dims.size() > size_t(kMaxRank)) throw ValueError("shapes have at most 8 dimensions");
  Shape s;
  for (int64_t n : dims) {
    if (n < 0) throw ValueError("a dimension cannot be negative, got " + std::to_string(n));
    s.push(n);
  }
  return s;
}

inline py::tuple shape_tuple(const Shape& s) {
  py::tuple t(s.rank);
  for (int i = 0; i < s.rank; ++i) t[i] = py::int_(s.dim[i]);
  return t;
}

inline py::array new_array(DType t, const Shape& s) {
  return py::array(numpy_dtype(t), std::vector<py::ssize_t>(s.dim, s.dim + s.rank));
}

inline py::array copy_out(DType t, const Shape& s, const void* from) {
  py::array a = new_array(t, s);
  if (const int64_t n = s.count()) std::memcpy(a.mutable_data(), from, size_t(n * size_of(t)));
  return a;
}

// The array as C-contiguous `t`. Integers never come from floating point; floats may come from integers and booleans.
py::array as_dtype(const py::handle& object, DType t, const std::string& what);

// Copies `object` to `to`, which holds `shape` of `t`.
void copy_in(const py::handle& object, DType t, const Shape& shape, void* to, const std::string& what);

void bind_config(py::module_& m);
void bind_graph(py::module_& m);
void bind_measure(py::module_& m);
void bind_program(py::module_& m);
void bind_stepper(py::module_& m);

}  // namespace pbp
