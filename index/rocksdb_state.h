// Reads the rows of the `state` family: for the index, and for a probe, which opens no other family.

#ifndef TENSORSHELF_INDEX_ROCKSDB_STATE_H_
#define TENSORSHELF_INDEX_ROCKSDB_STATE_H_

#include <rocksdb/db.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "index/record.h"

namespace tensorshelf {

// Does not own what it reads from. Thread-safe. DataLoss: a row does not decode, or disagrees with its key.
class StateReader {
 public:
  StateReader(rocksdb::DB* db, rocksdb::ColumnFamilyHandle* state, const rocksdb::Snapshot* snapshot);

  absl::StatusOr<std::optional<SuperRow>> Super() const;
  absl::StatusOr<CommitRow> Commit() const;  // {0, 0} when there is none
  absl::StatusOr<InlineCountRow> InlineCount() const;
  absl::StatusOr<std::vector<FileRow>> Files() const;
  absl::StatusOr<std::vector<DeviceRow>> Devices() const;
  absl::StatusOr<std::vector<TuningRow>> Tunings() const;
  absl::StatusOr<std::vector<std::pair<uint32_t, uint64_t>>> FsyncSlots() const;
  absl::StatusOr<std::vector<Extent>> BadUnits() const;

 private:
  absl::StatusOr<std::optional<std::string>> Get(const char* key) const;
  // `suffix`: the key behind the prefix.
  using Visit = std::function<absl::Status(std::span<const std::byte> suffix, std::span<const std::byte> value)>;
  absl::Status Scan(const char* prefix, const Visit& visit) const;

  rocksdb::DB* const db_;
  rocksdb::ColumnFamilyHandle* const state_;
  rocksdb::ReadOptions options_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_ROCKSDB_STATE_H_
