// What all handles of a process share: the disk, the staging arena, the pool for temporaries, the locked memory.

#ifndef TENSORSHELF_PYTHON_AIO_PROCESS_WIDE_H_
#define TENSORSHELF_PYTHON_AIO_PROCESS_WIDE_H_

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/disk.h"
#include "engine/memory.h"
#include "python/aio/locked_memory.h"

namespace tensorshelf {

// Transfers are at most this long, whatever block size a handle was made with: longer ones are no faster, and staging
// buffers are as long as the longest transfer.
inline constexpr uint64_t kAioBlockBytesMax = uint64_t{1} << 20;
inline constexpr uint64_t kAioStagingBytes = uint64_t{64} << 20;

// Thread-safe. There is one, never destroyed: tensors and handles of a dying interpreter refer to it.
class AioProcess {
 public:
  static AioProcess& Get();

  // Messages for the user, from any thread; until this is called they are dropped.
  void SetNotice(std::function<void(const std::string& message)> notice);
  void NoticeBuffered(const std::string& message);  // the first one only

  Disk& disk() { return *disk_; }
  // Made with the first call.
  absl::StatusOr<StagingArena*> arena();
  MemoryPool& pool() { return pool_; }
  LockedMemory& locked() { return locked_; }

 private:
  AioProcess();
  void Notice(const std::string& message);

  const std::unique_ptr<Disk> disk_;
  MemoryPool pool_;
  LockedMemory locked_;
  std::atomic<bool> noticed_buffered_{false};

  absl::Mutex mutex_;
  std::unique_ptr<StagingArena> arena_ ABSL_GUARDED_BY(mutex_);
  absl::Mutex notice_mutex_;  // a leaf
  std::function<void(const std::string&)> notice_ ABSL_GUARDED_BY(notice_mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_AIO_PROCESS_WIDE_H_
