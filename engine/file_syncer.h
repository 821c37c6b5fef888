// Syncs several files at once, on threads of its own that start when they are first needed.

#ifndef TENSORSHELF_ENGINE_FILE_SYNCER_H_
#define TENSORSHELF_ENGINE_FILE_SYNCER_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "engine/disk.h"

namespace tensorshelf {

// Thread-safe.
class FileSyncer {
 public:
  FileSyncer() = default;
  ~FileSyncer();
  FileSyncer(const FileSyncer&) = delete;
  FileSyncer& operator=(const FileSyncer&) = delete;

  // The status of the i-th file at position i. The calling thread syncs too: one file costs no hand-over.
  std::vector<absl::Status> Sync(const std::vector<File*>& files);

 private:
  struct Round;  // one call of Sync
  struct Job {
    Round* round = nullptr;
    size_t index = 0;
  };

  void StartThreadsLocked(size_t wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool TakeJobOfLocked(const Round* round, Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Finish(const Job& job);
  void Work();

  absl::Mutex mutex_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FILE_SYNCER_H_
