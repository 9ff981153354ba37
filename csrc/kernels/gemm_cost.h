// What products cost on one thread, in nanoseconds: for the choice of threads only.
#pragma once

namespace pbp {
namespace {

constexpr double kFlopsPerNs = 150;  // of one thread, single precision: for the cost model only
constexpr double kElementNs = 0.05;  // a value written, or read once more, in cache
constexpr double kRowNs = 10;

}  // namespace
}  // namespace pbp
