// The thread behind MemoryPool::FaultInBehind.

#ifndef TENSORSHELF_ENGINE_FAULT_IN_THREAD_H_
#define TENSORSHELF_ENGINE_FAULT_IN_THREAD_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace tensorshelf {

// Faults ranges of memory in, one job after the other, front to back. The thread starts with the first job.
// Thread-safe.
class FaultInThread {
 public:
  FaultInThread();
  ~FaultInThread();  // cuts the jobs short; tickets may be destroyed later

  // The job ends, at the latest, when the returned ticket is destroyed: what has not begun is dropped, the step that
  // runs (a few milliseconds) is waited for. In a forked child, where there is no such thread, destroying one does
  // nothing.
  std::shared_ptr<void> Start(std::span<const std::span<std::byte>> ranges);

 private:
  struct Job;
  struct Queue;  // shared with the tickets
  static void Run(Queue& queue);

  const std::shared_ptr<Queue> queue_;
  absl::Mutex start_mutex_;
  std::thread thread_ ABSL_GUARDED_BY(start_mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FAULT_IN_THREAD_H_
