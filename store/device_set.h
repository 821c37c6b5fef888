// The open data files of a store and what moves their bytes: one IoEngine per device, one staging arena for all.

#ifndef TENSORSHELF_STORE_DEVICE_SET_H_
#define TENSORSHELF_STORE_DEVICE_SET_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/io_engine.h"
#include "index/record.h"
#include "store/options.h"
#include "store/witness_slot.h"

namespace tensorshelf {

// One data file of the store. `file` is null when its device is missing (degraded, read-only opens).
struct DataFile {
  FileRow row;
  std::string path;       // empty when missing
  std::string directory;  // the device's
  std::unique_ptr<File> file;
  uint64_t witness_commit = 0;            // highest durable_commit in its slots at open
  uint64_t slot_seq = 0;                  // newest slot; afterwards the commit thread's alone
  std::atomic<uint64_t> filled_until{0};  // bytes
  std::atomic<bool> read_only{false};     // a failed fdatasync: nothing may be acknowledged on it any more

  std::string NameForMessages() const { return path.empty() ? "data file " + std::to_string(row.file_id) : path; }
};

// Thread-safe after Create.
class DeviceSet {
 public:
  static absl::StatusOr<std::unique_ptr<DeviceSet>> Create(Disk* disk, const StoreOptions& options,
                                                           std::vector<std::unique_ptr<DataFile>> files);

  DataFile* Find(uint32_t file_id) const;  // null when unknown
  const std::vector<std::unique_ptr<DataFile>>& files() const { return files_; }

  // Moves all segments, each of which belongs to the file at the same position of `owners`, and waits. failed_segment
  // indexes `segments`.
  BatchResult Transfer(IoKind kind, Priority priority, std::vector<Segment> segments,
                       std::span<DataFile* const> owners);

  // fdatasync of each, in parallel; status i is of files[i].
  std::vector<absl::Status> Sync(std::span<DataFile* const> files);

  // Writes the next slot of one file. The commit thread's (or the opener's) alone.
  absl::Status WriteNextSlot(DataFile& file, const WitnessSlot& content);

  IoEngineStats io_stats() const;  // of all devices together
  struct DeviceIo {
    Uuid uuid{};
    IoEngineStats io;
  };
  std::vector<DeviceIo> io_by_device() const;
  const std::shared_ptr<MemoryPool>& pool() const { return pool_; }
  const StagingArena& arena() const { return *arena_; }
  bool page_locked() const { return arena_->page_locked(); }

 private:
  DeviceSet() = default;
  size_t DeviceOf(const DataFile& file) const { return device_of_.at(file.row.file_id); }

  std::vector<std::unique_ptr<DataFile>> files_;
  std::map<uint32_t, DataFile*> by_id_;
  std::map<uint32_t, size_t> device_of_;  // file_id -> engine
  std::shared_ptr<MemoryPool> pool_;
  std::unique_ptr<StagingArena> arena_;
  std::vector<std::unique_ptr<IoEngine>> engines_;
  std::vector<Uuid> uuids_;  // of the device at the same position of engines_
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_DEVICE_SET_H_
