#include "param.h"

#include <algorithm>
#include <map>

#include "error.h"

namespace pbp {
namespace {

std::atomic<uint64_t> epoch{1};

// Of parameters that no training has gathered.
const std::shared_ptr<Gate>& common_gate() {
  static const auto gate = std::make_shared<Gate>();
  return gate;
}

constexpr int64_t kPad = 16;  // elements: a vector of any level fits, and no two parameters share a cache line

// The distance between rows of a stored weight. Rows a whole number of pages apart would fall into the same sets of the
// caches.
int64_t row_stride(int64_t out, DType t) {
  const int64_t ld = round_up(out, kPad);
  return ld * size_of(t) % 4096 ? ld : ld + kPad;
}

template <class T>
void copy_linear(const Param& p, const T* from, T* to, bool out_of_storage) {
  const int64_t rows = p.shape[0], cols = p.shape[1], ld = p.stride(1);
  for (int64_t o = 0; o < rows; ++o)
    for (int64_t i = 0; i < cols; ++i) {
      if (out_of_storage)
        to[o * cols + i] = from[i * ld + o];
      else
        to[i * ld + o] = from[o * cols + i];
    }
}

void copy(const Param& p, const void* from, void* to, bool out_of_storage) {
  if (p.layout == Layout::dense) {
    std::memcpy(to, from, size_t(p.shape.count() * size_of(p.dtype)));
  } else if (size_of(p.dtype) == 4) {
    copy_linear(p, static_cast<const int32_t*>(from), static_cast<int32_t*>(to), out_of_storage);
  } else {
    copy_linear(p, static_cast<const int64_t*>(from), static_cast<int64_t*>(to), out_of_storage);
  }
}

}  // namespace

uint64_t storage_epoch() { return epoch.load(std::memory_order_acquire); }

Param::Param(DType dtype_, const Shape& shape_, Layout layout_, bool sparse_)
    : dtype(dtype_), shape(shape_), layout(layout_), sparse(sparse_) {
  if (layout == Layout::linear && shape.rank != 2)
    throw ValueError("a parameter with layout \"linear\" has 2 dimensions, this one has " + std::to_string(shape.rank));
  if (sparse && shape.rank != 2)
    throw ValueError("a sparse parameter has 2 dimensions (rows, width), this one has " + std::to_string(shape.rank));
  storage_ = std::make_shared<Block>(extent() * size_of(dtype));
  gate_ = common_gate();
}

int64_t Param::extent() const {
  if (layout == Layout::linear) return shape[1] * stride(1);
  return round_up(shape.count(), kPad);
}

int64_t Param::stride(int dim) const {
  if (layout == Layout::linear) return dim == 0 ? 1 : row_stride(shape[0], dtype);
  return shape.count_from(dim + 1);
}

View Param::view(void* base) const {
  View v;
  v.data = base;
  v.shape = shape;
  for (int i = 0; i < shape.rank; ++i) v.stride[i] = stride(i);
  return v;
}

void Param::read(void* to) const { to_logical(*this, data(), to); }
void Param::write(const void* from) { from_logical(*this, from, data()); }

void to_logical(const Param& p, const void* laid_out, void* logical) { copy(p, laid_out, logical, true); }
void from_logical(const Param& p, const void* logical, void* laid_out) { copy(p, logical, laid_out, false); }

void gather(const std::vector<ParamPtr>& params, const std::vector<ParamPtr>& beside) {
  std::map<DType, std::vector<Param*>> groups;
  for (const ParamPtr& p : params) groups[p->dtype].push_back(p.get());
  for (auto& [dtype, group] : groups) {
    int64_t bytes = 0;
    bool in_place = true;
    for (const Param* p : group) {
      in_place = in_place && p->storage_ == group[0]->storage_ && p->offset_ == group[0]->offset_ + bytes;
      bytes += round_up(p->extent() * size_of(dtype), kAlign);
    }
    if (in_place) continue;
    auto span = std::make_shared<Block>(bytes);
    int64_t offset = 0;
    for (Param* p : group) {
      const int64_t n = p->extent() * size_of(dtype);
      std::memcpy(span->data() + offset, p->data(), size_t(n));
      p->storage_ = span;
      p->offset_ = offset;
      offset += round_up(n, kAlign);
    }
    epoch.fetch_add(1, std::memory_order_release);
  }

  std::vector<ParamPtr> all = params;
  all.insert(all.end(), beside.begin(), beside.end());
  const auto first = [&](const ParamPtr& p) { return p->gate_ == all[0]->gate_; };
  if (all.empty() || (all[0]->gate_ != common_gate() && std::all_of(all.begin(), all.end(), first))) return;
  const auto gate = std::make_shared<Gate>();
  for (const ParamPtr& p : all) p->gate_ = gate;
  epoch.fetch_add(1, std::memory_order_release);
}

void settle(std::vector<GateUse>& uses) {
  std::sort(uses.begin(), uses.end(), [](const GateUse& a, const GateUse& b) { return a.gate < b.gate; });
  size_t n = 0;
  for (const GateUse& u : uses) {
    if (n && uses[n - 1].gate == u.gate)
      uses[n - 1].write = uses[n - 1].write || u.write;
    else
      uses[n++] = u;
  }
  uses.resize(n);
}

std::vector<GateUse> gates_of(const std::vector<ParamPtr>& params, bool write) {
  std::vector<GateUse> uses;
  for (const ParamPtr& p : params) uses.push_back({p->gate(), write});
  settle(uses);
  return uses;
}

}  // namespace pbp
