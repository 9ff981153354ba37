// Arrays into a binding and results out of it; shared by Program and Stepper.
#pragma once
#include "../core/program.h"
#include "arrays.h"

namespace pbp {

// Large arrays that are as the program wants them are read where they lie, others copied: the tuple must live until the
// run is over.
void fill_inputs(const Program& program, Binding& b, const py::tuple& inputs);
py::list read_outputs(const Binding& b);
py::object read_sparse(const SparseRows& r, DType t);
bool is_native(const void* descr, DType t);  // NumPy's own dtype object of t

}  // namespace pbp
