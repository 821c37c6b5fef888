// One ordered log of everything that a store does to files: data files through a Disk, the index through RocksDB's
// observer. A crash after any entry can be played back: the log up to there goes into a MemoryDisk, which knows what
// was synced. What its crash leaves is again a disk for the store; only RocksDB's files must be written out for it.

#ifndef TENSORSHELF_TESTS_TESTING_CRASH_LOG_H_
#define TENSORSHELF_TESTS_TESTING_CRASH_LOG_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "engine/disk.h"
#include "index/index.h"
#include "tests/testing/memory_disk.h"

namespace tensorshelf::testing {

struct LoggedOp {
  enum class Kind { kCreate, kWrite, kResize, kSync, kRename, kRemove, kMakeDirectory, kSyncDirectory, kMark };
  Kind kind = Kind::kWrite;
  std::string path;         // absolute; kMark: what the test said
  std::string target = {};  // kRename
  uint64_t offset = 0;      // kWrite; kResize: the new size; kMark: the test's number
  std::string bytes = {};   // kWrite
  size_t covers_until = 0;  // kSync: entries before this one are covered; later ones raced with it
};

// Thread-safe while it records. A write is entered when its completion is reaped, a sync when it returns.
class CrashLog {
 public:
  void Add(LoggedOp op) ABSL_LOCKS_EXCLUDED(mutex_);
  void Mark(const std::string& what, uint64_t number) { Add({LoggedOp::Kind::kMark, what, "", number, "", 0}); }
  size_t size() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Valid when nothing records any more.
  const std::vector<LoggedOp>& ops() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return ops_; }

 private:
  mutable absl::Mutex mutex_;
  std::vector<LoggedOp> ops_ ABSL_GUARDED_BY(mutex_);
};

// `base` must be the real disk (its queues take any file by its descriptor) and outlive this.
class LoggingDisk : public Disk {
 public:
  LoggingDisk(Disk* base, CrashLog* log) : base_(base), log_(log) {}

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override;
  absl::StatusOr<std::unique_ptr<IoQueue>> NewQueue(size_t depth) override;
  absl::Status MakeDirectory(const std::string& path, uint32_t mode) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Remove(const std::string& path) override;
  absl::Status SyncDirectory(const std::string& path) override;
  absl::StatusOr<PathInfo> Stat(const std::string& path) override { return base_->Stat(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return base_->List(path); }
  absl::StatusOr<FileSystemSpace> Space(const std::string& path) override { return base_->Space(path); }
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, const std::string& holder) override {
    return base_->Lock(path, holder);
  }
  absl::StatusOr<std::string> LockHolder(const std::string& path) override { return base_->LockHolder(path); }

 private:
  Disk* const base_;
  CrashLog* const log_;
};

// What RocksDB does to its files, into the same log.
class LoggingObserver : public IndexFileObserver {
 public:
  explicit LoggingObserver(CrashLog* log) : log_(log) {}
  absl::Status Before(const IndexFileOp& op) override;
  void After(const IndexFileOp& op) override;

 private:
  CrashLog* const log_;
  absl::Mutex mutex_;
  std::map<std::thread::id, size_t> sync_began_ ABSL_GUARDED_BY(mutex_);
};

// Plays a log back, forwards only.
class CrashReplay {
 public:
  // The directory `directory` is there from the beginning, durably.
  CrashReplay(const CrashLog& log, const std::string& directory);

  // Everything before entry `end` has happened.
  void AdvanceTo(size_t end);
  const MemoryDisk& disk() const { return disk_; }
  // Makes the real `directory` anew with the files that `crashed` has there, if it has it at all. For the index.
  static absl::Status Export(MemoryDisk& crashed, const std::string& directory);

 private:
  void Play(const LoggedOp& op);

  const CrashLog& log_;
  std::multimap<size_t, size_t> early_syncs_;  // where it began -> the entry of a sync that raced with writes
  size_t next_ = 0;
  MemoryDisk disk_;
};

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_CRASH_LOG_H_
