// Brings objects into the memory tier before they are asked for, one list after the other, on a thread of its own.

#ifndef TENSORSHELF_STORE_PREFETCHER_H_
#define TENSORSHELF_STORE_PREFETCHER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "store/store.h"

namespace tensorshelf {

// Thread-safe. The thread starts with the first list.
class Prefetcher {
 public:
  // Reads as many of `names`, from the first on, as make one modest step, into the tier. Returns how many names it is
  // done with (at least one, whatever became of them) and the bytes that they have in the tier now.
  struct Step {
    size_t names = 0;
    uint64_t bytes = 0;
  };
  using StepFunction = std::function<Step(std::span<const std::string> names, const ReadOptions& options)>;

  // The rest of a list is dropped when it has filled `list_bytes_max`: it would push out its own beginning.
  Prefetcher(uint64_t list_bytes_max, StepFunction step) : list_bytes_max_(list_bytes_max), step_(std::move(step)) {}
  ~Prefetcher() { Stop(); }

  // Beyond 2^20 waiting names the rest is dropped.
  void Add(std::span<const std::string> names, const ReadOptions& options);
  void WaitUntilIdle();
  uint64_t waiting() const;
  // Ends after the step at hand and drops the rest. Twice is fine.
  void Stop();

 private:
  struct List {
    std::vector<std::string> names;
    size_t next = 0;
    uint64_t bytes = 0;
    ReadOptions options;
  };
  void Loop();
  void DropFirstLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const uint64_t list_bytes_max_;
  const StepFunction step_;
  mutable absl::Mutex mutex_;                       // not held during a step
  std::deque<List> lists_ ABSL_GUARDED_BY(mutex_);  // the first one is being worked on
  uint64_t waiting_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_PREFETCHER_H_
