// Listing names with their records, at the speed of the two families' iterators.
//
// Names come in byte order, records lie by generation. So names are read a page at a time, the page's records are
// looked up in the order of their generations with an iterator that steps over small gaps and seeks over large ones,
// and then the page is handed out in the order of the names. Objects that were put in the order of their names need no
// seek.

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "index/rocksdb_index.h"
#include "index/rocksdb_status.h"

namespace tensorshelf {
namespace {

// The first pages are small, so that a short listing does not read far ahead.
constexpr size_t kPageMin = 64;
constexpr size_t kPageMax = 16384;
constexpr int kStepsMax = 24;  // about what a seek costs
constexpr uint64_t kReadaheadBytes = 2 << 20;

struct Entry {
  std::string name;
  uint64_t generation = 0;
  bool is_inline = false;
  absl::Status status;
  ObjectRecord record;
};

// Finds rows of rising generations. Confined to one thread.
class RowFinder {
 public:
  explicit RowFinder(std::unique_ptr<rocksdb::Iterator> rows) : rows_(std::move(rows)) {}

  // False: there is no such row, or it cannot be read (then status() says why).
  bool Find(uint64_t generation) {
    const std::string key = GenerationKey(generation);
    const rocksdb::Slice wanted(key);
    for (int step = 0; placed_ && step < kStepsMax && rows_->Valid() && rows_->key().compare(wanted) < 0; ++step) {
      rows_->Next();
    }
    if (!placed_ || !rows_->Valid() || rows_->key().compare(wanted) != 0) rows_->Seek(wanted);
    placed_ = rows_->Valid();
    return placed_ && rows_->key() == wanted;
  }
  // A new, lower generation may come next.
  void StartOver() { placed_ = false; }
  std::span<const std::byte> value() const { return BytesOf(rows_->value()); }
  rocksdb::Status status() const { return rows_->status(); }

 private:
  std::unique_ptr<rocksdb::Iterator> rows_;
  bool placed_ = false;
};

}  // namespace

class RocksDbCursor : public ObjectCursor {
 public:
  RocksDbCursor(RocksDbIndex* index, const std::string& prefix, const std::string& start)
      : index_(index), end_(AfterPrefix(NameKey(prefix))), upper_(end_) {
    rocksdb::ReadOptions options;
    options.fill_cache = false;
    // All three iterators of one moment: a snapshot where there are commits, the lock where a secondary catches up.
    absl::ReaderMutexLock lock(&index_->view_mutex_);
    rocksdb::DB& db = *index_->handles_.db;
    if (index_->mode_ == Index::Mode::kReadWrite || index_->mode_ == Index::Mode::kCreate) {
      options.snapshot = snapshot_ = db.GetSnapshot();
    }
    objects_ = std::make_unique<RowFinder>(Iterator(db, options, Family::kObjects));
    inlines_ = std::make_unique<RowFinder>(Iterator(db, options, Family::kInline));
    options.iterate_upper_bound = &upper_;
    if (prefix.empty() && start.empty()) options.readahead_size = kReadaheadBytes;
    names_ = Iterator(db, options, Family::kNames);
    names_->Seek(NameKey(std::max(prefix, start)));
  }

  ~RocksDbCursor() override {
    names_.reset();
    objects_.reset();
    inlines_.reset();
    if (snapshot_ != nullptr) index_->handles_.db->ReleaseSnapshot(snapshot_);
  }

  absl::StatusOr<bool> Next() override {
    if (++at_ < used_) return true;
    TS_RETURN_IF_ERROR(ReadPage());
    return used_ > 0;
  }
  const std::string& name() const override { return page_[at_].name; }
  uint64_t generation() const override { return page_[at_].generation; }
  const absl::Status& status() const override { return page_[at_].status; }
  const ObjectRecord& record() const override { return page_[at_].record; }

 private:
  std::unique_ptr<rocksdb::Iterator> Iterator(rocksdb::DB& db, const rocksdb::ReadOptions& options, Family family) {
    return std::unique_ptr<rocksdb::Iterator>(db.NewIterator(options, index_->handles_.of(family)));
  }

  absl::Status ReadPage() {
    page_size_ = std::clamp(page_size_ * 2, kPageMin, kPageMax);
    if (page_.size() < page_size_) page_.resize(page_size_);
    used_ = at_ = 0;
    by_generation_.clear();
    for (; used_ < page_size_ && names_->Valid(); names_->Next(), ++used_) {
      Entry& entry = page_[used_];
      const rocksdb::Slice key = names_->key();
      entry.name.assign(key.data() + 1, key.size() - 1);
      entry.status = TakeNameRow(entry);
      if (entry.status.ok()) by_generation_.push_back(used_);
    }
    TS_RETURN_IF_ERROR(index_->Failed(names_->status(), "scanning names"));
    std::ranges::sort(by_generation_, {}, [&](size_t i) { return page_[i].generation; });
    objects_->StartOver();
    inlines_->StartOver();
    for (const size_t i : by_generation_) page_[i].status = TakeRecord(page_[i]);
    return absl::OkStatus();
  }

  absl::Status TakeNameRow(Entry& entry) {
    entry.generation = 0;
    const auto row = DecodeNameRow(BytesOf(names_->value()));
    if (!row.ok()) return Annotate(row.status(), "name row");
    for (const Tlv& tlv : row->tlvs) {
      if ((tlv.tag & kTlvCritical) == 0) continue;
      return absl::UnimplementedError(
          absl::StrCat("the name has a critical part ", absl::Hex(tlv.tag), " that this version does not know"));
    }
    entry.generation = row->generation;
    entry.is_inline = (row->flags & NameRow::kInline) != 0;
    return absl::OkStatus();
  }

  absl::Status TakeRecord(Entry& entry) {
    RowFinder& rows = entry.is_inline ? *inlines_ : *objects_;
    const auto what = [&] { return absl::StrCat("record ", entry.generation); };
    if (!rows.Find(entry.generation)) {
      if (!rows.status().ok()) return index_->Failed(rows.status(), absl::StrCat("reading ", what()));
      return absl::DataLossError(absl::StrCat(what(), " is not in the index"));
    }
    if (entry.is_inline) {
      auto row = DecodeInlineRow(rows.value());
      if (!row.ok()) return Annotate(row.status(), what());
      entry.record = std::move(row->record);
    } else {
      auto record = DecodeRecord(rows.value());
      if (!record.ok()) return Annotate(record.status(), what());
      entry.record = *std::move(record);
    }
    if (entry.record.generation == entry.generation) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(what(), " says that it is record ", entry.record.generation));
  }

  RocksDbIndex* const index_;
  const std::string end_;
  const rocksdb::Slice upper_;
  const rocksdb::Snapshot* snapshot_ = nullptr;
  std::unique_ptr<rocksdb::Iterator> names_;
  std::unique_ptr<RowFinder> objects_, inlines_;
  size_t page_size_ = 0;
  std::vector<Entry> page_;
  std::vector<size_t> by_generation_;
  size_t used_ = 0;
  size_t at_ = std::numeric_limits<size_t>::max() - 1;  // nothing was read yet
};

std::unique_ptr<ObjectCursor> RocksDbIndex::NewCursor(const std::string& prefix, const std::string& start) {
  return std::make_unique<RocksDbCursor>(this, prefix, start);
}

absl::Status RocksDbIndex::ScanRows(
    IndexFamily family,
    const std::function<bool(std::span<const std::byte> key, std::span<const std::byte> value)>& visit) {
  rocksdb::ReadOptions options;
  options.readahead_size = kReadaheadBytes;
  options.fill_cache = false;
  const std::unique_ptr<rocksdb::Iterator> rows = NewIterator(options, FamilyOf(family));
  for (rows->SeekToFirst(); rows->Valid(); rows->Next()) {
    if (!visit(BytesOf(rows->key()), BytesOf(rows->value()))) return absl::OkStatus();
  }
  return Failed(rows->status(), absl::StrCat("scanning ", kFamilyNames[static_cast<size_t>(FamilyOf(family))]));
}

}  // namespace tensorshelf
