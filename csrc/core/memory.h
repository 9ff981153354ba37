// Cache-line aligned memory for arenas and parameters. Blocks are counted, so that a test can show that steady use
// makes none.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "op.h"

namespace pbp {

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

inline int64_t size_of(DType t) { return t == DType::f32 ? 4 : 8; }

int64_t allocation_count();

// Zeroed, 64-byte aligned.
class Block {
 public:
  explicit Block(int64_t bytes);
  ~Block() { std::free(data_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  char* data() const { return static_cast<char*>(data_); }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_;
  int64_t bytes_;
};

}  // namespace pbp
