// The extension module pybackprop._core. Only files in this folder know pybind11.
#include "../core/registry.h"
#include "arrays.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compute core of pybackprop: graphs, programs, training steps.";
  if (!pbp::cpu_supported())
    throw py::import_error("pybackprop needs a CPU with at least the x86-64-v2 instructions (SSE4.2, POPCNT)");
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const pbp::ValueError& e) {
      PyErr_SetString(PyExc_ValueError, e.what());
    } catch (const pbp::TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
  pbp::bind_config(m);
  pbp::bind_graph(m);
  pbp::bind_program(m);
  pbp::bind_measure(m);
  pbp::bind_stepper(m);
}
