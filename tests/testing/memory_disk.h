// A Disk in memory that tells what is written from what is durable: only File::Sync moves bytes, only SyncDirectory
// moves names across, and a crash drops whatever the test says of the rest.
//
// As strict as the strictest file system: a synced file whose name was not synced is lost, unsynced writes may survive
// in any combination and torn at any 512-byte sector, unsynced name changes likewise. An IoOp that is not aligned as
// the file asks completes with -EINVAL, as on a real O_DIRECT descriptor.

#ifndef TENSORSHELF_TESTS_TESTING_MEMORY_DISK_H_
#define TENSORSHELF_TESTS_TESTING_MEMORY_DISK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"

namespace tensorshelf::testing {

// What one crash does to everything that was not synced.
struct CrashPolicy {
  // One 512-byte sector of one unsynced write (or its unaligned beginning or end).
  struct Sector {
    std::string path;         // as the file was opened
    uint64_t write_sequence;  // counts the writes of the disk, from 0
    uint64_t offset;          // bytes, in the file
    uint64_t length;          // 1 .. 512
  };
  // One unsynced creation, removal, rename or change of a file's size.
  struct Change {
    std::string path;
    uint64_t sequence;  // on the same count as the writes
  };

  // Whether it reached the disk. Never null.
  std::function<bool(const Sector&)> keeps_sector;
  std::function<bool(const Change&)> keeps_change;

  static CrashPolicy DropUnsynced();
  static CrashPolicy KeepUnsynced();
  // Each write whole or not at all, each change or not, by a coin of its own.
  static CrashPolicy RandomWrites(uint64_t seed);
  // Each sector by a coin of its own: torn writes.
  static CrashPolicy RandomSectors(uint64_t seed);
};

// Thread-safe. Files, queues and locks may outlive the disk; after CrashAndRestart those from before fail with EIO.
// The directory "/" exists; relative paths start there. Contents are sparse: a file costs what was written to it.
class MemoryDisk : public Disk {
 public:
  struct Options {
    IoAlignment alignment;                        // of every file opened with `direct`
    uint64_t capacity_bytes = uint64_t{1} << 40;  // the sum of file sizes; beyond it ENOSPC
  };

  MemoryDisk();  // the default options
  explicit MemoryDisk(Options options);
  ~MemoryDisk() override;

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

  // The power goes: files, queues and locks of before are dead (destroying them is safe), the disk holds what was
  // durable and what `policy` keeps, and all of that is durable now.
  void CrashAndRestart(const CrashPolicy& policy);

  // The disk that CrashAndRestart would leave, as a disk of its own; this one goes on. Cheap: contents are shared until
  // one side writes.
  std::unique_ptr<MemoryDisk> AfterCrash(const CrashPolicy& policy) const;

  // Inverts the bits of `mask` in one byte of a file, in the live and the durable image: damage, not a write.
  absl::Status FlipBits(const std::string& path, uint64_t offset, uint8_t mask);

  // Writes and changes (names, sizes) that a crash now could drop.
  size_t unsynced_count() const;

  struct State;  // shared with the open files

 private:
  explicit MemoryDisk(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

}  // namespace tensorshelf::testing

#endif  // TENSORSHELF_TESTS_TESTING_MEMORY_DISK_H_
