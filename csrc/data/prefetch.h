/* A feeder that gathers the next batch on a thread of its own while the current one is being computed. It wraps another
   feeder, and after answering for rows [first, first + rows) it guesses that the rows behind them come next. A wrong
   guess costs the work of one batch, never the result. */
#pragma once
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <thread>
#include <vector>

#if defined(_WIN32)
#include <process.h>
#else
#include <unistd.h>
#endif

#include "../core/feeder.h"

namespace pbp {

class Prefetch {
 public:
  // row_bytes[i]: bytes of one row of buffer i. total: rows in the epoch's order.
  Prefetch(const pbp_feeder* inner, const std::vector<int64_t>& row_bytes, int64_t total)
      : inner_(*inner),
        row_bytes_(row_bytes),
        total_(total),
        stage_(row_bytes.size()),
        pointers_(row_bytes.size()),
        owner_(process_id()) {}

  // In a forked child the object is left where it is: its thread stayed behind in the parent, and destroying a
  // condition variable that records a waiter would wait for it for ever.
  static void retire(Prefetch* self) noexcept {
    if (self->forked()) return;
    self->stop();
    delete self;
  }

  static int fill(void* self, int64_t first, int64_t rows, void* const* buffers) noexcept {
    return static_cast<Prefetch*>(self)->answer(first, rows, buffers);
  }

  // Forget what was gathered ahead, because the order of rows is about to change. Returns once the thread is idle.
  void discard() {
    if (forked() || !thread_) return;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return state_ != kWanted; });
    state_ = kIdle;
  }

  // Ends the thread. The next answer starts a new one.
  void stop() noexcept {
    if (forked() || !thread_) return;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      quit_ = true;
    }
    changed_.notify_all();
    thread_->join();
    delete thread_;
    thread_ = nullptr;
    quit_ = false;
    state_ = kIdle;
  }

 private:
  ~Prefetch() = default;
  enum State { kIdle, kWanted, kReady };

  static int64_t process_id() {
#if defined(_WIN32)
    return _getpid();
#else
    return getpid();
#endif
  }
  bool forked() const { return process_id() != owner_; }

  int answer(int64_t first, int64_t rows, void* const* buffers) noexcept {
    if (forked()) return inner_.fill(inner_.context, first, rows, buffers);
    try {
      int result = take(first, rows, buffers);
      if (result == 0) want(first + rows, rows);
      return result;
    } catch (...) {  // no memory or no thread to be had: the plain way needs neither
      return inner_.fill(inner_.context, first, rows, buffers);
    }
  }

  int take(int64_t first, int64_t rows, void* const* buffers) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return state_ != kWanted; });
    const bool hit = state_ == kReady && result_ == 0 && first_ == first && rows_ == rows;
    state_ = kIdle;
    lock.unlock();  // the thread sleeps until the next `want`, so the stage is ours
    if (!hit) return inner_.fill(inner_.context, first, rows, buffers);
    for (size_t i = 0; i < row_bytes_.size(); ++i)
      std::memcpy(buffers[i], stage_[i].data(), static_cast<size_t>(rows * row_bytes_[i]));
    return 0;
  }

  void want(int64_t first, int64_t rows) {
    if (first + rows > total_) rows = total_ - first;
    if (rows <= 0) return;
    for (size_t i = 0; i < row_bytes_.size(); ++i) {
      const size_t need = static_cast<size_t>(rows * row_bytes_[i]);
      if (stage_[i].size() < need) stage_[i].resize(need);
      pointers_[i] = stage_[i].data();
    }
    if (!thread_) thread_ = new std::thread([this] { work(); });
    {
      std::lock_guard<std::mutex> lock(mutex_);
      first_ = first;
      rows_ = rows;
      state_ = kWanted;
    }
    changed_.notify_all();
  }

  void work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return quit_ || state_ == kWanted; });
      if (quit_) return;
      lock.unlock();
      const int result = inner_.fill(inner_.context, first_, rows_, pointers_.data());
      lock.lock();
      result_ = result;
      state_ = kReady;
      changed_.notify_all();
    }
  }

  const pbp_feeder inner_;
  const std::vector<int64_t> row_bytes_;
  const int64_t total_;
  std::vector<std::vector<char>> stage_;
  std::vector<void*> pointers_;
  const int64_t owner_;
  std::thread* thread_ = nullptr;
  std::mutex mutex_;
  std::condition_variable changed_;
  State state_ = kIdle;
  bool quit_ = false;
  int result_ = 0;
  int64_t first_ = 0, rows_ = 0;
};

}  // namespace pbp
