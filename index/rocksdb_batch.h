// A commit's rows as RocksDB takes them, and its names again as a map that reads see. Internal to index/.

#ifndef TENSORSHELF_INDEX_ROCKSDB_BATCH_H_
#define TENSORSHELF_INDEX_ROCKSDB_BATCH_H_

#include <rocksdb/write_batch.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "index/index.h"
#include "index/rocksdb_options.h"

namespace tensorshelf {

class RocksDbIndex;

// Confined to one thread. Only names need an overlay: nothing else is read back before the commit.
class RocksDbBatch : public CommitBatch {
 public:
  using Names = absl::btree_map<std::string, std::optional<NameRow>>;  // nullopt: deleted

  explicit RocksDbBatch(RocksDbIndex* index);

  absl::StatusOr<std::optional<NameRow>> FindName(const std::string& name) const override;
  absl::Status ScanNames(const std::string& prefix,
                         const std::function<bool(const std::string& name, const NameRow& row)>& visit) const override;
  void PutName(const std::string& name, const NameRow& row) override;
  void DeleteName(const std::string& name) override;
  absl::Status PutObject(const ObjectRecord& record, std::span<const uint64_t> sums) override;
  absl::Status PutInlineObject(const ObjectRecord& record, std::span<const std::byte> payload) override;
  void DeleteObject(const ObjectRecord& record) override;
  void DeleteObject(uint64_t generation) override;
  void PutSuper(const SuperRow& row) override;
  void PutFile(const FileRow& row) override;
  void DeleteFile(uint32_t file_id) override;
  void PutDevice(const DeviceRow& row) override;
  void DeleteDevice(const Uuid& uuid) override;
  void PutTuning(const TuningRow& row) override;
  void PutFsyncSlot(uint32_t file_id, uint64_t slot_seq) override;
  void PutInlineCount(const InlineCountRow& row) override;
  void PutBadUnits(const Extent& extent) override;
  void DeleteRow(IndexFamily family, std::span<const std::byte> key) override;
  uint64_t size_bytes() const override;
  void SetSavePoint() override;
  void RollbackToSavePoint() override;
  void DropSavePoint() override;

  // Adds the commit row. An Internal status: RocksDB refused a row, and the batch must not be written.
  absl::Status Complete(const CommitRow& row);
  rocksdb::WriteBatch* rows() { return &rows_; }
  const Names& names() const { return names_; }
  // Of the records that the batch puts or deletes; some more than once.
  const std::vector<uint64_t>& generations() const { return generations_; }

 private:
  struct SavePoint {
    size_t undo_count;
    size_t generations_count;
    uint64_t skipped_bytes;
  };
  // What a name was in the overlay before; nullopt: it was not there.
  using Undo = std::pair<std::string, std::optional<std::optional<NameRow>>>;

  void Put(Family family, const std::string& key, const std::string& value);
  void Delete(Family family, const std::string& key);
  void Note(const rocksdb::Status& status);
  void SetName(const std::string& name, std::optional<NameRow> row);
  void DeleteSums(uint64_t generation, uint64_t sums_count);
  bool full() const;

  RocksDbIndex* const index_;
  rocksdb::WriteBatch rows_;
  // Bytes that were not added because the batch is over its limit already: it will be refused, but must not take all
  // memory.
  uint64_t skipped_bytes_ = 0;
  rocksdb::Status first_error_;
  Names names_;
  std::vector<uint64_t> generations_;
  std::vector<Undo> undo_;  // only while there are save points
  std::vector<SavePoint> save_points_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_ROCKSDB_BATCH_H_
