// Trains and predicts from many threads at once, for ThreadSanitizer: two trainings of one model, one of another, one
// that holds its gate for many steps, readers of both models, and parameters that move. `python` stands for Python's
// lock.
//
//   race [SECONDS]      exit status: 0 if every reader saw a finished step; the sanitizer has one of its own
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "core/enter.h"
#include "core/stepper.h"
#include "core/threads.h"

using namespace pbp;

namespace {

std::mutex python;
struct Released {
  Released() { python.unlock(); }
  ~Released() { python.lock(); }
};

constexpr int64_t kWidth = 96, kRows = 32;
std::atomic<bool> stop{false}, torn{false};

Shape shape(std::initializer_list<int64_t> dims) {
  Shape s;
  for (int64_t d : dims) s.push(d);
  return s;
}

// One layer whose weights are all equal, before and after every step: dW is the same everywhere.
struct Model {
  ParamPtr weight = std::make_shared<Param>(DType::f32, shape({kWidth, kWidth}), Layout::linear, false);
  ParamPtr bias = std::make_shared<Param>(DType::f32, shape({kWidth}), Layout::dense, false);

  std::shared_ptr<Program> training(int threads) const {
    Graph g(DType::f32, true, "");
    const int x = g.input(shape({kRows, kWidth}), false, "x");
    const int w = g.param(weight, "weight", true), b = g.param(bias, "bias", true);
    const int y = g.node("linear", {x, w, b}, "", {})[0];
    const int loss = g.node("mean", {g.node("mul", {y, y}, "", {})[0]}, "", {})[0];
    return std::make_shared<Program>(g, std::vector<int>{loss}, loss, std::vector<int>{w, b}, std::vector<int>{},
                                     threads);
  }
  std::shared_ptr<Program> inference(int threads) const {
    Graph g(DType::f32, false, "");
    const int x = g.input(shape({kRows, kWidth}), false, "x");
    const int w = g.param(weight, "weight", true), b = g.param(bias, "bias", true);
    return std::make_shared<Program>(g, g.node("linear", {x, w, b}, "", {}), -1, std::vector<int>{}, std::vector<int>{},
                                     threads);
  }
};

std::unique_ptr<Stepper> stepper_of(const Model& m, int threads) {
  StepperOptions options;
  options.rule = "adam";
  options.threads = threads;
  return std::make_unique<Stepper>(options, std::vector<ParamPtr>{m.weight, m.bias}, std::vector<int>{0, 0},
                                   std::vector<std::map<std::string, double>>{{}});
}

void ones(Binding& b) {
  float* x = static_cast<float*>(b.input(0));
  for (int64_t i = 0; i < kRows * kWidth; ++i) x[i] = 1;
}

// The lock of a training, never awaited while holding Python's.
std::unique_lock<ForkMutex> guarded(Stepper& s) {
  std::unique_lock<ForkMutex> guard(s.mutex, std::try_to_lock);
  if (!guard.owns_lock()) {
    const Released released;
    guard.lock();
  }
  return guard;
}

// What a call from Python does.
void step(Stepper& s, const std::shared_ptr<Program>& program) {
  std::lock_guard<std::mutex> own(python);
  const auto guard = guarded(s);
  Hold hold;
  Binding& b = enter<Released>(hold, true, [&]() -> Binding& { return s.prepare(program); });
  ones(b);
  const Released released;
  s.step(b, 1e-4);
}

int fill(void*, int64_t, int64_t, void* const* buffers) {
  float* x = static_cast<float*>(buffers[0]);
  for (int64_t i = 0; i < kRows * kWidth; ++i) x[i] = 1;
  return 0;
}

void run(Stepper& s, const std::shared_ptr<Program>& program, int64_t batches) {
  std::lock_guard<std::mutex> own(python);
  const auto guard = guarded(s);
  Hold hold;
  Binding& b = enter<Released>(hold, true, [&]() -> Binding& { return s.prepare(program); });
  const pbp_feeder feeder{&fill, nullptr, 0, nullptr};
  const std::vector<double> rates(size_t(batches), 1e-4);
  std::vector<double> results(size_t(batches), 0.0);
  const Released released;
  s.run(b, feeder, 0, kRows, batches, rates.data(), 1.0, results.data(), hold);
}

void predict(Program& program) {
  std::lock_guard<std::mutex> own(python);
  Program::Lease lease(program);
  Binding& b = *lease.binding;
  Hold hold;
  enter<Released>(hold, false, [&]() -> Binding& {
    b.rebind(program.threads_for(false));
    return b;
  });
  ones(b);
  {
    const Released released;
    b.run(program.threads_for(false));
  }
  const float* y = static_cast<const float*>(b.address(program.plan->outputs[0]));
  for (int64_t i = 1; i < kRows * kWidth; ++i)
    if (y[i] != y[0]) torn.store(true);
}

void look(const Model& m) {
  std::lock_guard<std::mutex> own(python);
  std::vector<GateUse> uses;
  Hold hold;
  enter<Released>(hold, false, {m.weight, m.bias}, uses);
  std::vector<float> w(size_t(kWidth * kWidth));
  m.weight->read(w.data());
  for (float v : w)
    if (v != w[0]) torn.store(true);
}

void move(const Model& m, const ParamPtr& other) {
  std::lock_guard<std::mutex> own(python);
  const std::vector<ParamPtr> orders[2] = {{m.weight, m.bias, other}, {other, m.weight, m.bias}};
  for (const auto& params : orders) {
    std::vector<GateUse> uses;
    Hold hold;
    enter<Released>(hold, true, params, uses);
    gather(params, {});
  }
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 2;
  const Model one, two;
  const auto other = std::make_shared<Param>(DType::f32, shape({5}), Layout::dense, false);
  gather({one.weight, one.bias}, {});
  gather({two.weight, two.bias}, {});
  auto first = stepper_of(one, 2), again = stepper_of(one, 1), second = stepper_of(two, 2);
  const auto t1 = one.training(0), t2 = two.training(0), p1 = one.inference(2), p2 = two.inference(0);

  std::vector<std::thread> threads;
  std::atomic<int64_t> done{0};
  auto start = [&](auto work) {
    threads.emplace_back([&, work] {
      while (!stop.load()) {
        work();
        done.fetch_add(1);
        std::this_thread::yield();
      }
    });
  };
  start([&] { step(*first, t1); });
  start([&] { step(*first, t1); });
  start([&] { step(*again, t1); });
  start([&] { run(*second, t2, 50); });
  start([&] { step(*second, t2); });
  start([&] { predict(*p1); });
  start([&] { predict(*p1); });
  start([&] { predict(*p2); });
  start([&] { look(one); });
  start([&] { look(two); });
  start([&] { move(one, other); });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop.store(true);
  for (std::thread& t : threads) t.join();
  std::printf("%lld calls, %lld + %lld + %lld steps, %s\n", (long long)done.load(), (long long)first->steps,
              (long long)again->steps, (long long)second->steps,
              torn.load() ? "a reader saw half a step" : "every reader saw a finished step");
  return torn.load() ? 1 : 0;
}
