#include "limits.h"

#include <algorithm>

#include "error.h"
#include "team.h"
#include "ticks.h"

namespace pbp {
namespace {

constexpr size_t kPieces = 1 << 15;        // most pieces a measurement keeps
constexpr int64_t kPieceFloats = 1 << 14;  // of memory: 64 KiB
constexpr int64_t kWhole = 64;             // floats: the in-place loop's step
constexpr int64_t kTileDepth = 256;

double median(std::vector<int64_t>& v) {
  std::nth_element(v.begin(), v.begin() + int64_t(v.size() / 2), v.end());
  return double(std::max<int64_t>(1, v[v.size() / 2]));
}

// Runs piece(thread, threads, i) for i = 0, 1, ... on every thread for so many seconds; a piece returns what it did.
template <class Piece>
double measure(int threads, double seconds, Piece piece) {
  struct Call {
    Piece& piece;
    double seconds;
    std::vector<std::vector<int64_t>> taken;
    std::vector<double> work;  // of a piece
    Barrier barrier;
    TickRate clock;
  } call{piece, seconds, std::vector<std::vector<int64_t>>(size_t(threads)), std::vector<double>(size_t(threads)),
         {},    {}};
  for (auto& t : call.taken) t.reserve(kPieces);
  const int took_part = run_team(
      threads, call.barrier,
      [](int thread, int n, void* context) {
        Call& c = *static_cast<Call*>(context);
        std::vector<int64_t>& taken = c.taken[size_t(thread)];
        c.work[size_t(thread)] = c.piece(thread, n, 0);  // brings what it needs into the cache
        if (n > 1) c.barrier.wait();
        const double until = c.clock.seconds() + c.seconds;
        for (int64_t i = 1; taken.size() < kPieces; ++i) {
          const int64_t before = ticks();
          c.piece(thread, n, i);
          taken.push_back(ticks() - before);
          if (c.clock.seconds() >= until) break;
        }
      },
      &call);
  const double tick = call.clock.seconds_per_tick();
  double rate = 0;
  for (size_t t = 0; t < size_t(took_part); ++t) rate += call.work[t] / (median(call.taken[t]) * tick);
  return rate;
}

bool has_bf16() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace

double fma_rate(const Level& level, DType dtype, int threads, double seconds) {
  const auto loop = level.loops->fma[dtype == DType::f64];
  return measure(threads, seconds, [&](int, int, int64_t) { return loop(200); });
}

double bf16_rate(const Level& level, int threads, double seconds) {
  const auto loop = level.loops->bf16;
  if (!loop || !has_bf16()) return 0;
  return measure(threads, seconds, [&](int, int, int64_t) { return loop(200); });
}

std::vector<TileRate> tile_rates(const Level& level, double seconds_each) {
  const LimitLoops& loops = *level.loops;
  std::vector<TileRate> rates;
  for (int natives = 1; natives <= loops.tile_widths; ++natives) {
    const int most = loops.tile_rows[natives - 1];
    const int64_t width = natives * loops.lanes;
    Block a(most * kTileDepth * 4), b(kTileDepth * width * 4), c(most * width * 4);
    for (int rows = 1; rows <= most; ++rows) {
      const double rate = measure(1, seconds_each, [&](int, int, int64_t) {
        loops.tile(rows, natives, kTileDepth, 4, reinterpret_cast<float*>(a.data()), reinterpret_cast<float*>(b.data()),
                   reinterpret_cast<float*>(c.data()));
        return 4.0 * 2.0 * double(rows) * double(width) * double(kTileDepth);
      });
      rates.push_back({rows, natives, rate});
    }
  }
  return rates;
}

MemorySpan::MemorySpan(int64_t bytes) : block_(round_up(std::max<int64_t>(bytes, 1), kWhole * 4)) {
  std::memset(block_.data(), 0, size_t(block_.bytes()));  // pages that were never written are not memory yet
}

double MemorySpan::rate(const Level& level, int threads, double seconds) {
  const auto pass = level.loops->in_place;
  float* const x = reinterpret_cast<float*>(block_.data());
  const int64_t steps = block_.bytes() / 4 / kWhole;
  threads = int(std::min<int64_t>(threads, steps));
  return measure(threads, seconds, [=](int thread, int n, int64_t i) {
    const int64_t part = steps / n * kWhole, piece = std::min(part, kPieceFloats), pieces = part / piece;
    pass(x + thread * part + i % pieces * piece, piece);
    return double(piece) * 8;
  });
}

}  // namespace pbp
