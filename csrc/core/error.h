// What goes wrong is said in one sentence; bindings turn these into Python's ValueError and TypeError.
#pragma once
#include <stdexcept>
#include <string>

namespace pbp {

struct ValueError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// A Python exception is set already (a Python op or feeder failed): let it through unchanged.
struct HostError : std::exception {};

}  // namespace pbp
