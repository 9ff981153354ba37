// Guarded programs, for tests: every buffer is poisoned before a run and followed by a band that must be as it was
// after it. The byte is NaN in either float type, and -1 as an integer.
#include <cstring>
#include <stdexcept>

#include "program.h"

namespace pbp {
namespace {

constexpr unsigned char kPoison = 0xff;

bool intact(const char* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; ++i)
    if (static_cast<unsigned char>(at[i]) != kPoison) return false;
  return true;
}

// Whose buffer it is: the first item that names it, and as what.
std::string owner(const Plan& plan, int buffer) {
  for (const Item& item : plan.items) {
    const std::pair<const char*, const std::vector<Operand>*> lists[] = {
        {"output", &item.out}, {"saved buffer", &item.saved}, {"gradient of input", &item.d_in}, {"input", &item.in}};
    for (const auto& [what, list] : lists)
      for (size_t k = 0; k < list->size(); ++k)
        if ((*list)[k].buffer == buffer) return std::string(what) + " " + std::to_string(k) + " of " + item.label;
    if (item.scratch == buffer) return "scratch of " + item.label;
  }
  return "a result";
}

}  // namespace

void Binding::poison() {
  if (!plan_->guarded) return;
  std::memset(arena_->data(), kPoison, size_t(plan_->arena_bytes));
  for (size_t k = 0; k < plan_->wrt.size(); ++k) {
    const ParamPtr& p = plan_->wrt[k].param;
    if (!p || plan_->wrt[k].sparse >= 0) continue;
    const int64_t bytes = p->extent() * size_of(plan_->dtype);  // of which the padding is zero
    if (p->layout == Layout::dense)
      std::memset(gradients_[k], kPoison, size_t(p->shape.count() * size_of(plan_->dtype)));
    std::memset(gradients_[k] + bytes, kPoison, kAlign);
  }
  if (local_) std::memset(local_->data(), kPoison, size_t(local_->bytes()));
}

void Binding::check_guards() const {
  if (!plan_->guarded) return;
  for (size_t b = 0; b < plan_->buffers.size(); ++b) {
    const Buffer& x = plan_->buffers[b];
    if (x.space != Space::arena) continue;
    if (!intact(arena_->data() + x.offset + x.used, x.bytes - x.used))
      throw std::runtime_error("an op wrote beyond the end of " + owner(*plan_, int(b)));
  }
  for (size_t k = 0; k < plan_->wrt.size(); ++k) {
    const ParamPtr& p = plan_->wrt[k].param;
    if (p && plan_->wrt[k].sparse < 0 && !intact(gradients_[k] + p->extent() * size_of(plan_->dtype), kAlign))
      throw std::runtime_error("an op wrote beyond the end of a parameter's gradient");
  }
  for (int t = 0; local_ && t < threads_; ++t)
    if (!intact(local_->data() + t * local_stride() + plan_->local_bytes, kAlign))
      throw std::runtime_error("an op wrote beyond the end of a thread's private memory");
}

}  // namespace pbp
