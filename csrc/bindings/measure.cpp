// What is measured: the CPU's limits, and where the time of a run goes.
#include "measure.h"

#include "../core/limits.h"

namespace pbp {
namespace {

void check(int threads, double seconds) {
  if (threads < 1) throw ValueError("threads must be at least 1, got " + std::to_string(threads));
  if (!(seconds > 0)) throw ValueError("seconds must be positive");
}

double fma(int threads, double seconds, const std::string& dtype, const std::optional<std::string>& isa) {
  check(threads, seconds);
  const DType t = dtype_of(dtype);
  if (t == DType::i64) throw ValueError("dtype must be \"float32\" or \"float64\", got \"int64\"");
  const Level& l = level(isa.value_or(""));
  py::gil_scoped_release release;
  return fma_rate(l, t, threads, seconds) * 1e-9;
}

std::optional<double> bf16(int threads, double seconds, const std::optional<std::string>& isa) {
  check(threads, seconds);
  const Level& l = level(isa.value_or(""));
  py::gil_scoped_release release;
  const double rate = bf16_rate(l, threads, seconds);
  return rate > 0 ? std::optional<double>(rate * 1e-9) : std::nullopt;
}

std::vector<std::tuple<int, int, double>> tiles(double seconds, const std::optional<std::string>& isa) {
  check(1, seconds);
  const Level& l = level(isa.value_or(""));
  py::gil_scoped_release release;
  std::vector<std::tuple<int, int, double>> list;
  for (const TileRate& r : tile_rates(l, seconds)) list.push_back({r.rows, r.natives, r.rate * 1e-9});
  return list;
}

py::list shapes(const std::vector<Operand>& operands) {
  py::list list;
  for (const Operand& o : operands) list.append(shape_tuple(o.view.shape));
  return list;
}

// Bytes of the memory that a pass over one node touches.
int64_t bytes_of(const Plan& plan, const Item& item) {
  std::map<int, int64_t> seen;
  for (const auto* list : {&item.in, &item.out, &item.saved, &item.d_in, &item.d_out})
    for (const Operand& o : *list)
      if (o.buffer >= 0)
        seen[o.buffer] = std::max(seen[o.buffer],
                                  std::min(plan.buffers[size_t(o.buffer)].bytes, o.view.count() * size_of(plan.dtype)));
  int64_t bytes = 0;
  for (const auto& [buffer, n] : seen) bytes += n;
  return bytes;
}

}  // namespace

py::tuple read_timeline(const Plan& plan, const Timeline& t) {
  py::list jobs;
  for (const Job& j : plan.jobs) {
    const Item& item = plan.items[size_t(j.item)];
    py::list wanted;
    for (const Operand& o : item.d_in) wanted.append(o.buffer >= 0);
    for (size_t k = 0; k < item.sparse.size(); ++k)
      if (item.sparse[k] >= 0) wanted[k] = true;
    py::dict d;
    d["label"] = item.label;
    d["op"] = item.op;
    d["backward"] = item.pass == kBackward;
    d["item"] = j.item;
    d["phase"] = j.phase;
    d["inputs"] = shapes(item.in);
    d["outputs"] = shapes(item.out);
    d["wanted"] = wanted;
    d["bytes"] = bytes_of(plan, item);
    jobs.append(d);
  }
  auto array = [&](bool waiting) {
    py::array_t<double> a({py::ssize_t(t.steps), py::ssize_t(t.threads), py::ssize_t(t.slots)});
    double* to = a.mutable_data();
    for (int64_t i = 0; i < t.steps; ++i)
      for (int k = 0; k < t.threads; ++k)
        for (int s = 0; s < t.slots; ++s) *to++ = t.seconds(k, i, s, waiting);
    return a;
  };
  return py::make_tuple(jobs, array(false), array(true));
}

void bind_measure(py::module_& m) {
  m.def("measure_fma", &fma, py::arg("threads") = 1, py::arg("seconds") = 0.005, py::arg("dtype") = "float32",
        py::arg("isa") = py::none(), "GFLOP/s of multiply-adds in registers.");
  m.def("measure_bf16", &bf16, py::arg("threads") = 1, py::arg("seconds") = 0.005, py::arg("isa") = py::none(),
        "GFLOP/s of bfloat16 dot products in registers; None where the CPU or the level has none.");
  m.def("measure_tiles", &tiles, py::arg("seconds") = 0.001, py::arg("isa") = py::none(),
        "(rows, vectors, GFLOP/s) of every register tile of the matrix product, seconds each.");
  py::class_<MemorySpan>(m, "MemorySpan", "Memory to measure on.")
      .def(py::init([](int64_t bytes) {
             if (bytes < 1) throw ValueError("bytes must be at least 1, got " + std::to_string(bytes));
             return std::make_unique<MemorySpan>(bytes);
           }),
           py::arg("bytes"))
      .def_property_readonly("bytes", &MemorySpan::bytes)
      .def(
          "rate",
          [](MemorySpan& s, int threads, double seconds) {
            check(threads, seconds);
            py::gil_scoped_release release;
            return s.rate(level(""), threads, seconds) * 1e-9;
          },
          py::arg("threads") = 1, py::arg("seconds") = 0.005,
          "GB/s read and written when every thread goes through its part in place.");
}

}  // namespace pbp
