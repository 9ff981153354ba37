#include "arrays.h"

namespace pbp {

py::array as_dtype(const py::handle& object, DType t, const std::string& what) {
  py::array a = py::array::ensure(object);
  if (!a) {
    PyErr_Clear();
    throw TypeError(what + " expects an array, got " + std::string(py::str(py::type::of(object).attr("__name__"))));
  }
  const char kind = a.dtype().kind();
  const bool integer = kind == 'i' || kind == 'u';
  if (t == DType::i64 ? !integer : !(integer || kind == 'f' || kind == 'b'))
    throw TypeError(what + " expects " + (t == DType::i64 ? "integers" : "real numbers") + ", got dtype " +
                    std::string(py::str(a.dtype())));
  const bool same = a.dtype().is(numpy_dtype(t)) && (a.flags() & py::array::c_style);
  if (same) return a;
  switch (t) {
    case DType::f32:
      return py::array_t<float, py::array::c_style | py::array::forcecast>(a);
    case DType::f64:
      return py::array_t<double, py::array::c_style | py::array::forcecast>(a);
    case DType::i64:
      break;
  }
  return py::array_t<int64_t, py::array::c_style | py::array::forcecast>(a);
}

void copy_in(const py::handle& object, DType t, const Shape& shape, void* to, const std::string& what) {
  const py::array a = as_dtype(object, t, what);
  bool fits = a.ndim() == shape.rank;
  for (int i = 0; fits && i < shape.rank; ++i) fits = a.shape(i) == shape.dim[i];
  if (!fits) throw ValueError(what + " expects shape " + to_text(shape) + ", got " + to_text(shape_of(a)));
  if (const int64_t n = shape.count()) std::memcpy(to, a.data(), size_t(n * size_of(t)));
}

}  // namespace pbp
