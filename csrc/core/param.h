// Parameters and buffers of a model: handles onto storage that may move, so that a model's parameters can lie in one
// span.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gate.h"
#include "memory.h"
#include "op.h"

namespace pbp {

// How a logical array lies in memory. `linear` is a 2-d weight (out, in) stored as [in][out padded to 16, or a little
// more], the operand that a forward product reads in place.
enum class Layout : uint8_t { dense, linear };

class Param {
 public:
  Param(DType dtype, const Shape& shape, Layout layout, bool sparse);

  DType dtype;
  Shape shape;
  Layout layout;
  bool sparse;  // its gradient is rows (an embedding table); lies apart from the dense span

  int64_t extent() const;  // elements occupied, padding included: a multiple of 16
  int64_t stride(int dim) const;
  char* data() const { return storage_->data() + offset_; }
  View view(void* base) const;  // the logical shape over `base`, laid out as this parameter is
  const std::shared_ptr<Block>& storage() const { return storage_; }
  const std::shared_ptr<Gate>& gate() const { return gate_; }

  // Logical, row-major, own dtype.
  void read(void* to) const;
  void write(const void* from);

 private:
  friend void gather(const std::vector<std::shared_ptr<Param>>&, const std::vector<std::shared_ptr<Param>>&);
  std::shared_ptr<Block> storage_;
  std::shared_ptr<Gate> gate_;
  int64_t offset_ = 0;  // bytes
};

using ParamPtr = std::shared_ptr<Param>;

// Moves the storage of these parameters into one span per dtype, in order, and gives them, and others beside them, one
// gate. Handles stay valid; nothing happens if all is so already. Their gates are to be held, to write.
void gather(const std::vector<ParamPtr>& params, const std::vector<ParamPtr>& beside);

// The gates of parameters, to read or to write all of them.
std::vector<GateUse> gates_of(const std::vector<ParamPtr>& params, bool write);
// Puts uses into the order in which gates are entered, each gate once.
void settle(std::vector<GateUse>& uses);

// Advanced whenever any parameter's storage moves, or its gate changes: whoever holds them compares this before a run.
uint64_t storage_epoch();

// Copies between a logical row-major array and a laid-out one of the same dtype.
void to_logical(const Param& p, const void* laid_out, void* logical);
void from_logical(const Param& p, const void* logical, void* laid_out);

}  // namespace pbp
