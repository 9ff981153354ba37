// Replays op cases without Python: reads the file that native_cases.py writes (its layout is described there), runs
// every case through graph, plan and kernels of this build's highest instruction set, and compares outputs and
// gradients.
//
//   replay FILE [THREADS]      exit status: 0 all agree, 1 some do not, 2 the file cannot be read
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/program.h"

using namespace pbp;

namespace {

class File {
 public:
  explicit File(const char* path) {
    FILE* f = std::fopen(path, "rb");
    if (!f) throw std::runtime_error("cannot open");
    char piece[65536];
    for (size_t n; (n = std::fread(piece, 1, sizeof piece, f)) > 0;) bytes_.insert(bytes_.end(), piece, piece + n);
    std::fclose(f);
  }
  void take(void* to, size_t n) {
    if (n > bytes_.size() - at_) throw std::runtime_error("cut short");
    if (n) std::memcpy(to, bytes_.data() + at_, n);
    at_ += n;
  }
  int64_t integer() {
    int64_t v;
    take(&v, sizeof v);
    return v;
  }
  double real() {
    double v;
    take(&v, sizeof v);
    return v;
  }
  std::string text() {
    std::string s(size_t(integer()), '\0');
    take(&s[0], s.size());
    return s;
  }
  Shape shape() {
    Shape s;
    for (int64_t rank = integer(); rank > 0; --rank) s.push(integer());
    return s;
  }
  std::vector<double> reals(int64_t n) {
    std::vector<double> v(size_t(n), 0.0);
    take(v.data(), v.size() * sizeof(double));
    return v;
  }
  std::vector<int64_t> integers(int64_t n) {
    std::vector<int64_t> v(size_t(n), 0);
    take(v.data(), v.size() * sizeof(int64_t));
    return v;
  }

 private:
  std::vector<char> bytes_;
  size_t at_ = 0;
};

enum Role { kFed, kFedIntegers, kParam, kSparseParam };

struct Array {
  Shape shape;
  std::vector<double> values;
};
Array read_array(File& f) {
  Array a;
  a.shape = f.shape();
  a.values = f.reals(a.shape.count());
  return a;
}

// Values as float32 or float64, as the program wants them.
std::vector<char> as(DType t, const std::vector<double>& values) {
  std::vector<char> bytes(values.size() * size_t(size_of(t)));
  for (size_t i = 0; i < values.size(); ++i) {
    const float narrow = float(values[i]);
    if (t == DType::f32)
      std::memcpy(bytes.data() + i * 4, &narrow, 4);
    else
      std::memcpy(bytes.data() + i * 8, &values[i], 8);
  }
  return bytes;
}
std::vector<double> to_reals(DType t, const void* at, int64_t n) {
  std::vector<double> v(size_t(n), 0.0);
  for (int64_t i = 0; i < n; ++i)
    v[size_t(i)] = t == DType::f32 ? double(static_cast<const float*>(at)[i]) : static_cast<const double*>(at)[i];
  return v;
}

// How far `got` is out of bounds; 1 is just within. rtol < 0 asks for equal bits.
double excess(const std::vector<double>& got, const std::vector<double>& wanted, double rtol, double atol) {
  if (got.size() != wanted.size()) return INFINITY;
  double scale = 1, worst = 0;
  for (double w : wanted)
    if (std::isfinite(w)) scale = std::fmax(scale, std::fabs(w));
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = got[i], w = wanted[i];
    if (rtol < 0 || !std::isfinite(g) || !std::isfinite(w)) {
      const bool equal = (std::isnan(g) && std::isnan(w)) || (g == w && std::signbit(g) == std::signbit(w));
      if (!equal) return INFINITY;
      continue;
    }
    worst = std::fmax(worst, std::fabs(g - w) / (atol * scale + rtol * std::fabs(w)));
  }
  return worst;
}

// One case of the file; false if it does not agree.
bool replay(File& f, int threads) {
  const std::string id = f.text(), op = f.text();
  const DType dtype = f.integer() == 4 ? DType::f32 : DType::f64;
  const bool training = f.integer() != 0;
  const double rtol = f.real(), atol = f.real();
  std::vector<Attr> attrs;
  for (int64_t n = f.integer(); n > 0; --n) {
    Attr a{f.text(), int64_t(0)};
    switch (f.integer()) {
      case 0:
        a.value = f.integer();
        break;
      case 1:
        a.value = f.real();
        break;
      case 2: {
        const int64_t k = f.integer();
        a.value = f.integers(k);
        break;
      }
      default: {
        const int64_t k = f.integer();
        a.value = f.reals(k);
      }
    }
    attrs.push_back(a);
  }

  Graph graph(dtype, training, "");
  std::vector<int> in, wrt;
  std::vector<std::vector<char>> fed;  // in the order of the program's inputs
  for (int64_t n = f.integer(); n > 0; --n) {
    const int64_t role = f.integer();
    const bool differentiated = f.integer() != 0;
    const Shape shape = f.shape();
    const std::string name = "input " + std::to_string(in.size());
    if (role == kFedIntegers) {
      const std::vector<int64_t> values = f.integers(shape.count());
      const char* at = reinterpret_cast<const char*>(values.data());
      fed.emplace_back(at, at + values.size() * sizeof(int64_t));
      in.push_back(graph.input(shape, true, name));
    } else {
      const std::vector<char> values = as(dtype, f.reals(shape.count()));
      if (role == kFed) {
        fed.push_back(values);
        in.push_back(graph.input(shape, false, name));
      } else {
        auto p = std::make_shared<Param>(dtype, shape, Layout::dense, role == kSparseParam);
        p->write(values.data());
        in.push_back(graph.param(p, name, differentiated));
      }
    }
    if (differentiated) wrt.push_back(in.back());
  }

  const std::vector<int> outputs = graph.node(op, in, id, attrs);
  int loss = -1;
  for (int64_t n = f.integer(); n > 0; --n) {  // the loss is the sum of output * direction
    const int64_t k = f.integer();
    const Array d = read_array(f);
    fed.push_back(as(dtype, d.values));
    const int direction = graph.input(d.shape, false, "direction");
    const int product = graph.node("mul", {outputs[size_t(k)], direction}, "", {})[0];
    const int term = graph.node("sum", {product}, "", {})[0];
    loss = loss < 0 ? term : graph.node("add", {loss, term}, "", {})[0];
  }

  Program program(graph, outputs, loss, loss < 0 ? std::vector<int>{} : wrt, {}, threads, true);
  Program::Lease lease(program);
  Binding& b = *lease.binding;
  b.rebind(threads);
  b.poison();
  for (size_t i = 0; i < fed.size(); ++i)
    if (!fed[i].empty()) std::memcpy(b.input(int(i)), fed[i].data(), fed[i].size());
  b.state = RunState{0, 0, 0};
  b.run(threads);
  b.check_guards();

  bool agrees = true;
  auto compare = [&](const char* what, int64_t k, const std::vector<double>& got, const Array& wanted) {
    const double e = excess(got, wanted.values, rtol, atol);
    if (e <= 1) return;
    agrees = false;
    std::printf("%s: %s %lld is out of bounds (%g)\n", id.c_str(), what, (long long)k, e);
  };
  for (int64_t n = f.integer(), k = 0; k < n; ++k) {
    const int64_t number = f.integer();
    const Array wanted = read_array(f);
    const Operand& o = program.plan->outputs[size_t(number)];
    compare("output", number, to_reals(dtype, b.address(o), o.view.count()), wanted);
  }
  for (int64_t n = f.integer(), k = 0; k < n; ++k) {
    const Array wanted = read_array(f);
    const Plan::Wanted& w = program.plan->wrt[size_t(k)];
    std::vector<double> got(wanted.values.size(), 0.0);
    if (w.sparse >= 0) {
      const SparseRows& r = b.sparse(w.sparse);
      const std::vector<double> rows = to_reals(dtype, r.values, r.count * r.width);
      for (int64_t i = 0; i < r.count; ++i)
        std::memcpy(got.data() + r.rows[i] * r.width, rows.data() + i * r.width, size_t(r.width) * sizeof(double));
    } else if (w.gradient.buffer >= 0) {
      got = to_reals(dtype, b.address(w.gradient), int64_t(got.size()));
    }
    compare("gradient", k, got, wanted);
  }
  return agrees;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return std::fprintf(stderr, "replay FILE [THREADS]\n"), 2;
  int64_t cases = 0, bad = 0;
  try {
    File f(argv[1]);
    char magic[8];
    f.take(magic, sizeof magic);
    if (std::memcmp(magic, "pbpcase1", sizeof magic) != 0) throw std::runtime_error("not a file of cases");
    for (cases = f.integer(); cases > 0; --cases)
      if (!replay(f, argc > 2 ? std::atoi(argv[2]) : 1)) ++bad;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s (%lld cases left)\n", argv[1], e.what(), (long long)cases);
    return 2;
  }
  std::printf("%s: %s\n", available_levels().back().name, bad ? "differs" : "all cases agree");
  return bad ? 1 : 0;
}
