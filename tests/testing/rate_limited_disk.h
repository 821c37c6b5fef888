// A Disk around any other on which the files of some directories move as many bytes a second as a device would: one
// transfer behind the other, whoever asks for them, and each device by itself.

#ifndef TENSORSHELF_TESTS_TESTING_RATE_LIMITED_DISK_H_
#define TENSORSHELF_TESTS_TESTING_RATE_LIMITED_DISK_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "engine/disk.h"

namespace tensorshelf::testing {

// When a device has moved what it was asked for. Thread-safe.
class RatedDevice {
 public:
  explicit RatedDevice(std::string directory) : directory_(std::move(directory)) {}

  const std::string& directory() const { return directory_; }
  void SetRate(uint64_t bytes_per_s);  // 0: no limit
  void SetStopped(bool stopped) { stopped_.store(stopped); }
  bool stopped() const { return stopped_.load(); }
  // The moment at which `bytes` more will have moved.
  absl::Time Pass(uint64_t bytes);

 private:
  const std::string directory_;
  std::atomic<bool> stopped_{false};
  absl::Mutex mutex_;
  uint64_t rate_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Time free_at_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

// Thread-safe. `base` must outlive the disk and everything opened through it; so must the disk. Queues take only files
// of the same disk. Reads and writes alone take time; syncs and everything else are the base's.
class RateLimitedDisk : public Disk {
 public:
  RateLimitedDisk(Disk* base, const std::vector<std::string>& directories);

  // Of one of `directories`, from the next transfer on. No limit at first.
  void SetRate(const std::string& directory, uint64_t bytes_per_s);
  // While a device is stopped no transfer of it ends, those that are in flight included.
  void SetStopped(const std::string& directory, bool stopped);

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override;
  absl::StatusOr<std::unique_ptr<IoQueue>> NewQueue(size_t depth) override;
  absl::StatusOr<PathInfo> Stat(const std::string& path) override { return base_->Stat(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& directory) override {
    return base_->List(directory);
  }
  absl::Status MakeDirectory(const std::string& path, uint32_t mode) override {
    return base_->MakeDirectory(path, mode);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override { return base_->Rename(from, to); }
  absl::Status Remove(const std::string& path) override { return base_->Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override { return base_->SyncDirectory(path); }
  absl::StatusOr<FileSystemSpace> Space(const std::string& path) override { return base_->Space(path); }
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, const std::string& holder) override {
    return base_->Lock(path, holder);
  }
  absl::StatusOr<std::string> LockHolder(const std::string& path) override { return base_->LockHolder(path); }

 private:
  RatedDevice* Find(const std::string& directory) const;

  Disk* const base_;
  std::vector<std::unique_ptr<RatedDevice>> devices_;
};

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_RATE_LIMITED_DISK_H_
