// A Disk around any other that fails, shortens, loses, delays, reorders or damages the calls that a test names.
//
// To try a fault at every place it can happen:
//   for (uint64_t k = 1;; ++k) {
//     FaultyDisk disk(&base);
//     disk.Arm({.call = Call::kSync, .nth = k, .error_number = EIO});
//     ... the work, which must fail or succeed, but not lie ...
//     if (disk.fired_count() == 0) break;  // the work makes fewer than k such calls
//   }

#ifndef TENSORSHELF_TESTS_TESTING_FAULTY_DISK_H_
#define TENSORSHELF_TESTS_TESTING_FAULTY_DISK_H_

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf::testing {

enum class Call : uint8_t {
  kOpen,
  kSize,
  kPRead,
  kPWrite,
  kSync,
  kAllocate,
  kTruncate,
  kNewQueue,
  kSubmit,
  kReap,
  kCompletion,  // one IoOp; counted in the order of submission
  kStat,
  kList,
  kMakeDirectory,
  kRename,
  kRemove,
  kSyncDirectory,
  kSpace,
  kLock,
  kLockHolder,
};
inline constexpr size_t kCallCount = static_cast<size_t>(Call::kLockHolder) + 1;

enum class Effect : uint8_t {
  // Nothing is done; the call gives `error_number`.
  kFail,
  // It is done, then the call gives `error_number` all the same: an outcome that the caller cannot know.
  kFailAfter,
  // kPRead, kPWrite, kCompletion: moves `amount` bytes at most (rounded down to the file's alignment for direct ones).
  // kSubmit: takes `amount` operations at most.
  kShorten,
  // kPRead, and kCompletion of a read: inverts bit number `amount` (modulo what was read) of what is handed out.
  kFlipBit,
  // kPWrite, kCompletion of a write, kSync, kSyncDirectory: reports success and does nothing, as a lying device.
  kLose,
  // kCompletion: is reaped only when `amount` later ones have been, or nothing else is in flight.
  kDelay,
  // kPRead, kPWrite, kCompletion: reports success, but works on the place `amount` bytes further on.
  kMisdirect,
  // kPRead, and kCompletion of a read: hands out what was there when RememberForStaleReads was called.
  kStale,
};

struct Fault {
  Call call = Call::kSync;
  uint64_t nth = 1;            // the n-th matching call after Arm is the first hit
  uint64_t times = 1;          // how many in a row; 0: all from there on
  std::string path_part = "";  // matches calls whose path contains it; empty: all. Submit, Reap and NewQueue have none.
  // Transfers that touch these bytes of the file; other calls lie at 0. `times` = 0 makes it a latent sector error.
  uint64_t offset_begin = 0;
  uint64_t offset_end = UINT64_MAX;
  Effect effect = Effect::kFail;
  int error_number = EIO;
  uint64_t amount = 0;
};

// Thread-safe. `base` must outlive the disk and everything opened through it. Queues take only files of the same disk.
class FaultyDisk : public Disk {
 public:
  explicit FaultyDisk(Disk* base);
  ~FaultyDisk() override;

  // Several may be armed; of those that hit a call, the one armed first works.
  void Arm(Fault fault);
  void DisarmAll();
  // The device is gone: every call with a path that contains `path_part` fails with ENODEV from now on.
  void Vanish(const std::string& path_part);
  // What kStale hands out: the bytes of the file now. On an error nothing is remembered.
  absl::Status RememberForStaleReads(const std::string& path);
  // Completions of every queue are handed out in an order that follows from the seed, each Reap as few as it may.
  void ReorderCompletions(uint64_t seed);
  // Called before each call, without a lock held, from the calling thread: to look at the disk between two calls, or to
  // hold a thread at a known point.
  void OnCall(std::function<void(Call call, const std::string& path)> on_call);

  uint64_t count(Call call) const;  // since construction, the failed ones included
  uint64_t fired_count() const;     // calls that a fault has hit

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override;
  absl::StatusOr<std::unique_ptr<IoQueue>> NewQueue(size_t depth) override;
  absl::StatusOr<PathInfo> Stat(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override;
  absl::Status MakeDirectory(const std::string& path, uint32_t mode) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::StatusOr<FileSystemSpace> Space(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, const std::string& holder) override;
  absl::StatusOr<std::string> LockHolder(const std::string& path) override;

 private:
  Disk* const base_;
  const std::shared_ptr<class FaultScript> script_;  // shared with files and queues
};

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_FAULTY_DISK_H_
