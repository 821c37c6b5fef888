// The open data files of a store and what moves their bytes: one IoEngine per device, one staging arena for all.
//
// Files come and go while others transfer: everybody works on a table that never changes, and a change publishes a new
// one. Tables, files and engines stay in memory as long as the set, so nobody has to hold one.

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
#include "absl/synchronization/mutex.h"
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
  std::atomic<bool> draining{false};      // about to leave: it takes no new data

  std::string NameForMessages() const { return path.empty() ? "data file " + std::to_string(row.file_id) : path; }
};

// Thread-safe after Create.
class DeviceSet {
 public:
  // What is in the set at one moment.
  struct Table {
    std::vector<DataFile*> files;  // by file_id
    std::map<uint32_t, DataFile*> by_id;
    std::map<uint32_t, size_t> device_of;  // file_id -> in `engines`
    std::vector<IoEngine*> engines;
    std::vector<Uuid> uuids;  // of the device at the same position of `engines`
  };

  // `tunings`: of devices that were measured, used as StoreOptions::use_tuning says.
  static absl::StatusOr<std::unique_ptr<DeviceSet>> Create(Disk* disk, const StoreOptions& options,
                                                           std::vector<std::unique_ptr<DataFile>> files,
                                                           std::span<const TuningRow> tunings = {});

  DataFile* Find(uint32_t file_id) const;  // null when unknown
  // Those of now; stays valid when files come and go.
  const std::vector<DataFile*>& files() const { return table()->files; }

  // Files of devices that the set has, or of new ones. Their ids are above all others. On an error nothing was added.
  absl::Status Add(std::vector<std::unique_ptr<DataFile>> files);
  // Find and files() do not know it any more. It stays open, and what is under way ends well.
  void Remove(uint32_t file_id);

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
  // Of all devices there ever were, at the positions that the engines' trace events name.
  std::vector<Uuid> uuids() const { return table()->uuids; }
  const std::shared_ptr<MemoryPool>& pool() const { return pool_; }
  const StagingArena& arena() const { return *arena_; }
  bool page_locked() const { return arena_->page_locked(); }

 private:
  DeviceSet() = default;
  // Acquires what was filled in before it was published.
  const Table* table() const { return table_.load(std::memory_order_acquire); }
  void Publish(std::unique_ptr<Table> table) ABSL_EXCLUSIVE_LOCKS_REQUIRED(change_mutex_);
  IoEngineOptions OptionsFor(const Uuid& device) const;

  Disk* disk_ = nullptr;
  IoEngineOptions io_options_;
  std::vector<TuningRow> tunings_;  // in use
  std::shared_ptr<MemoryPool> pool_;
  std::unique_ptr<StagingArena> arena_;
  std::atomic<const Table*> table_{nullptr};
  absl::Mutex change_mutex_;  // a leaf
  std::vector<std::unique_ptr<const Table>> tables_ ABSL_GUARDED_BY(change_mutex_);
  std::vector<std::unique_ptr<DataFile>> files_ ABSL_GUARDED_BY(change_mutex_);
  std::vector<std::unique_ptr<IoEngine>> engines_ ABSL_GUARDED_BY(change_mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_DEVICE_SET_H_
