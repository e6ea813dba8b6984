// Splitting a call over XLA's own thread pool.
#pragma once
#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace jaxsec {

// Work is handed out by a counter; the calling thread takes part, so a busy or one-thread pool only means less help, never a deadlock.
struct Job {
  std::atomic<int64_t> next{0};
  std::atomic<int64_t> done{0};
  std::mutex mutex;
  std::condition_variable finished;
};

template <typename Work>
void Parallel(xla::ffi::ThreadPool& pool, int64_t tasks, const Work& work) {
  auto job = std::make_shared<Job>();
  // A helper that starts after the last task was taken touches nothing but the shared job.
  auto drain = [job, tasks, &work] {
    for (int64_t t; (t = job->next.fetch_add(1)) < tasks;) {
      work(t);
      if (job->done.fetch_add(1) + 1 == tasks) {
        std::lock_guard<std::mutex> lock(job->mutex);
        job->finished.notify_one();
      }
    }
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), tasks) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::decay_t<decltype(drain)>(drain));
  drain();
  std::unique_lock<std::mutex> lock(job->mutex);
  job->finished.wait(lock, [&] { return job->done.load() == tasks; });
}

// run(scratch, begin, end) over `rows`, in `per_worker` parts for each thread, with `floats` of scratch that is kept between calls:
// an attack makes thousands.
template <typename Run>
void ParallelRows(xla::ffi::ThreadPool& pool, int64_t rows, int64_t per_worker, int64_t floats, const Run& run) {
  const int64_t workers = std::max<int64_t>(1, pool.num_threads());
  const int64_t tasks = std::min<int64_t>(rows, workers == 1 ? 1 : per_worker * workers);
  Parallel(pool, tasks, [&](int64_t t) {
    constexpr int64_t kLine = 64, kSpare = kLine / sizeof(float);  // vectors that cross cache lines cost a tenth of the time
    thread_local std::vector<float> buffer;
    if (static_cast<int64_t>(buffer.size()) < floats + kSpare) buffer.resize(floats + kSpare);
    void* start = buffer.data();
    size_t space = buffer.size() * sizeof(float);
    run(static_cast<float*>(std::align(kLine, floats * sizeof(float), start, space)), rows * t / tasks, rows * (t + 1) / tasks);
  });
}

}  // namespace jaxsec
