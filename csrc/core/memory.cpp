#include "memory.h"

namespace {
std::atomic<int64_t> allocations{0};
}

namespace pbp {

int64_t allocation_count() { return allocations.load(std::memory_order_relaxed); }

Block::Block(int64_t bytes) : data_(nullptr), bytes_(round_up(bytes > 0 ? bytes : 1, kAlign)) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  data_ = std::aligned_alloc(size_t(kAlign), size_t(bytes_));
  if (!data_) throw std::bad_alloc();
  std::memset(data_, 0, size_t(bytes_));
}

}  // namespace pbp
