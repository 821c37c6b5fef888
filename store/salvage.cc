// Salvage, step by step:
//   1 lock, STORE, labels, slots    2 a new index beside the old one: the backup restored, or an empty one
//   3 the trailers of all data files    4 newest first: claim space, compare every block, give names
//   5 rows into the new index, under commit numbers above every witnessed one    6 swap
// The old index is renamed, never removed.

#include "store/salvage.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "index/index.h"
#include "index/record_codec.h"
#include "store/layout.h"
#include "store/name.h"
#include "store/open_checks.h"
#include "store/shelf_files.h"
#include "store/shelf_lock.h"
#include "store/store_core.h"
#include "store/trailer_scan.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

using Fate = SalvagedObject::Fate;
using Source = SalvagedObject::Source;

constexpr char kNewIndexName[] = "index.new";
constexpr uint64_t kBatchBytes = uint64_t{64} << 20;

// Space that accepted objects have. Confined to one thread.
class ClaimedSpace {
 public:
  bool Overlaps(const std::vector<Extent>& extents) const {
    return std::ranges::any_of(extents, [&](const Extent& extent) {
      const auto file = files_.find(extent.file_id);
      if (file == files_.end()) return false;
      auto next = file->second.lower_bound(extent.first_unit);
      if (next != file->second.end() && next->first < extent.end_unit()) return true;
      return next != file->second.begin() && std::prev(next)->second > extent.first_unit;
    });
  }
  void Claim(const std::vector<Extent>& extents) {
    for (const Extent& extent : extents) files_[extent.file_id][extent.first_unit] = extent.end_unit();
  }

 private:
  std::map<uint32_t, std::map<uint64_t, uint64_t>> files_;  // file -> first unit -> end
};

// An object that may be taken over.
struct Candidate {
  uint64_t generation = 0;
  uint32_t place_seq = 0;
  Source source = Source::kTrailer;
  bool is_inline = false;          // of the backup
  std::vector<std::string> names;  // of the backup's objects: all; of a trailer's: the one that it was put under
  std::optional<Trailer> trailer;
};

// A directory that is removed again unless it was renamed away.
class StagingDirectory {
 public:
  explicit StagingDirectory(std::string path) : path_(std::move(path)) { Remove(); }
  ~StagingDirectory() { Remove(); }
  const std::string& path() const { return path_; }

 private:
  // A leftover of a run that was cut off makes the next one fail with a message of its own.
  void Remove() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string path_;
};

// One salvage. Confined to one thread.
class Salvager {
 public:
  Salvager(Disk& disk, const std::string& shelf, const SalvageOptions& options)
      : disk_(disk), shelf_(shelf), options_(options) {}

  absl::StatusOr<SalvageReport> Run() {
    TS_ASSIGN_OR_RETURN(found_,
                        FindShelfFiles(disk_, shelf_, {.extra_directories = options_.devices, .skip_damaged = true}));
    if (found_.files.empty()) return absl::NotFoundError(absl::StrCat("no data file of ", shelf_, " can be read"));
    slots_ = SummarizeSlots(found_.files);
    std::vector<std::unique_ptr<FileLock>> locks;
    if (!options_.dry_run) {
      TS_ASSIGN_OR_RETURN(locks, LockShelf(disk_, shelf_, options_.devices));
    }
    const StagingDirectory staging(options_.dry_run ? DryRunPath() : JoinPath(shelf_, kNewIndexName));
    TS_RETURN_IF_ERROR(OpenNewIndex(staging.path()));
    TS_RETURN_IF_ERROR(CollectFromBackup());
    TS_RETURN_IF_ERROR(CollectTrailers());
    std::ranges::sort(candidates_, [](const Candidate& a, const Candidate& b) {
      return std::pair(a.generation, a.place_seq) > std::pair(b.generation, b.place_seq);
    });
    for (Candidate& candidate : candidates_) TS_RETURN_IF_ERROR(Judge(candidate));
    TS_RETURN_IF_ERROR(WriteState());
    TS_RETURN_IF_ERROR(index_->Flush());
    index_.reset();
    report_.commit = commit_;
    if (!options_.dry_run) {
      TS_ASSIGN_OR_RETURN(report_.old_index, SwapIndex(disk_, shelf_, kNewIndexName));
    }
    return report_;
  }

 private:
  static std::string DryRunPath() {
    std::error_code ignored;
    return JoinPath(std::filesystem::temp_directory_path(ignored).string(),
                    absl::StrCat("tensorshelf-salvage-", static_cast<int64_t>(getpid())));
  }

  absl::Status OpenNewIndex(const std::string& path) {
    super_.store_uuid = found_.store_file.store_uuid;
    commit_ = slots_.durable_commit;
    if (options_.backup.empty()) {
      TS_ASSIGN_OR_RETURN(index_, Index::Open(path, Index::Mode::kCreate, {}));
      const Label& label = found_.files[0].label;
      super_.compat = label.compat;
      super_.ro_compat = label.ro_compat;
    } else {
      TS_RETURN_IF_ERROR(RestoreIndex(options_.backup, path));
      TS_ASSIGN_OR_RETURN(index_, Index::Open(path, Index::Mode::kReadWrite, {}));
      TS_ASSIGN_OR_RETURN(const auto super, index_->ReadSuper());
      if (!super.has_value() || super->store_uuid != super_.store_uuid) {
        return absl::DataLossError(
            absl::StrCat("the backup ", options_.backup, " is not of store ", UuidText(super_.store_uuid)));
      }
      super_ = *super;
      TS_ASSIGN_OR_RETURN(const CommitRow commit, index_->ReadCommit());
      commit_ = std::max(commit_, commit.commit);
    }
    super_.epoch = std::max(super_.epoch, slots_.epoch);
    batch_ = index_->NewBatch();
    return absl::OkStatus();
  }

  absl::Status CollectFromBackup() {
    if (options_.backup.empty()) return absl::OkStatus();
    const std::unique_ptr<ObjectCursor> cursor = index_->NewCursor("", "");
    while (true) {
      TS_ASSIGN_OR_RETURN(const bool there, cursor->Next());
      if (!there) break;
      if (!cursor->status().ok()) {
        ++report_.lost_names;
        batch_->DeleteName(cursor->name());
        continue;
      }
      const auto [entry, is_new] = in_backup_.try_emplace(cursor->generation(), candidates_.size());
      if (is_new) {
        Candidate candidate;
        candidate.generation = cursor->generation();
        candidate.place_seq = cursor->record().place_seq;
        candidate.source = Source::kBackup;
        candidate.is_inline = cursor->record().placement == Placement::kInline;
        candidates_.push_back(std::move(candidate));
      }
      candidates_[entry->second].names.push_back(cursor->name());
      newest_in_backup_ = std::max(newest_in_backup_, cursor->generation());
    }
    // Objects without a name take space too.
    return index_->ScanObjects(0, UINT64_MAX, [&](uint64_t generation, std::span<const std::byte>) {
      if (in_backup_.contains(generation)) return true;
      candidates_.push_back({.generation = generation, .source = Source::kBackup});
      newest_in_backup_ = std::max(newest_in_backup_, generation);
      return true;
    });
  }

  // Trailers older than the backup are of objects that it has, or that had been dropped before it was made. One of an
  // object that was moved since says where it is by now.
  absl::Status CollectTrailers() {
    uint64_t total = 0, before = 0;
    for (const FoundFile& file : found_.files) total += file.label.data_end - file.label.data_begin;
    for (const FoundFile& file : found_.files) {
      const auto progress = [&](uint64_t done) {
        if (options_.progress) options_.progress(before + done, total);
      };
      TS_ASSIGN_OR_RETURN(std::vector<Trailer> trailers,
                          ScanTrailers(*file.file->file, file.file->row, super_.store_uuid, progress));
      before += file.label.data_end - file.label.data_begin;
      report_.trailers += trailers.size();
      for (Trailer& trailer : trailers) {
        Candidate candidate;
        candidate.generation = trailer.header.generation;
        if (const auto record = DecodeRecord(BytesOf(trailer.record)); record.ok()) {
          candidate.place_seq = record->place_seq;
        }
        if (candidate.generation <= newest_in_backup_) {
          const auto known = in_backup_.find(candidate.generation);
          if (known == in_backup_.end() || candidates_[known->second].place_seq >= candidate.place_seq) continue;
          candidate.names = candidates_[known->second].names;
        } else {
          candidate.names.push_back(trailer.name);
        }
        candidate.trailer = std::move(trailer);
        candidates_.push_back(std::move(candidate));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Judge(Candidate& candidate) {
    // An older place of an object that was moved: its bytes may still be whole there.
    if (accepted_.contains(candidate.generation)) return absl::OkStatus();
    SalvagedObject object{.source = candidate.source, .generation = candidate.generation};
    object.name = candidate.names.empty() ? "" : candidate.names[0];
    ObjectRecord record;
    const absl::Status fit = Examine(candidate, &record, &object);
    object.bytes = record.logical_bytes;
    if (fit.ok()) {
      TS_RETURN_IF_ERROR(Accept(candidate, record, &object));
    } else {
      object.detail = std::string(fit.message());
      if (candidate.source == Source::kBackup) DropFromBackup(candidate);
    }
    Count(object.fate);
    if (options_.on_object) options_.on_object(object);
    if (batch_->size_bytes() < kBatchBytes) return absl::OkStatus();
    return CommitBatchNow();
  }

  // OK when the object is whole and nothing newer lies in its space. Sets object->fate otherwise.
  absl::Status Examine(Candidate& candidate, ObjectRecord* record, SalvagedObject* object) {
    object->fate = Fate::kUnreadable;
    std::vector<uint64_t> sums;
    if (candidate.trailer.has_value()) {
      TS_ASSIGN_OR_RETURN(*record, DecodeRecord(BytesOf(candidate.trailer->record)));
      sums = candidate.trailer->sums;
      if (record->generation != candidate.generation || record->placement != Placement::kExtents ||
          record->trailer.first_unit != candidate.trailer->header.self_unit) {
        return absl::DataLossError("trailer and record do not belong together");
      }
    } else {
      TS_ASSIGN_OR_RETURN(const auto found, index_->FindRecord(candidate.generation, candidate.is_inline));
      *record = *found;
      if (record->placement != Placement::kExtents) return absl::OkStatus();
      sums = record->sums;
      if (sums.empty() && record->sums_count() > 0) {
        sums.resize(record->sums_count());
        TS_RETURN_IF_ERROR(index_->ReadSums(record->generation, 0, std::span<uint64_t>(sums)));
      }
    }
    TS_RETURN_IF_ERROR(CheckLayout(*record));
    const std::vector<Extent> extents = ExtentsOf(*record);
    for (const Extent& extent : extents) TS_RETURN_IF_ERROR(CheckInside(extent));
    object->fate = Fate::kOverlapped;
    if (claimed_.Overlaps(extents)) return absl::DataLossError("a newer object lies in its space");
    object->fate = Fate::kDamaged;
    return VerifyStoredBytes(*record, sums, found_.files);
  }

  absl::Status CheckInside(const Extent& extent) const {
    for (const FoundFile& file : found_.files) {
      if (file.label.file_id == extent.file_id && extent.offset() >= file.label.data_begin &&
          extent.offset() < file.label.data_end && extent.bytes() <= file.label.data_end - extent.offset()) {
        return absl::OkStatus();
      }
    }
    return absl::DataLossError(absl::StrCat("it lies outside the data files that are there (file ", extent.file_id,
                                            ", offset ", extent.offset(), ")"));
  }

  absl::Status Accept(const Candidate& candidate, const ObjectRecord& record, SalvagedObject* object) {
    claimed_.Claim(ExtentsOf(record));
    accepted_.insert(candidate.generation);
    if (candidate.trailer.has_value()) {
      // As the stager does: up to 64 sums are in the record, more in rows.
      const std::vector<uint64_t>& sums = candidate.trailer->sums;
      const bool in_rows = record.sums.empty() && sums.size() > kSumsInRecordMax;
      TS_RETURN_IF_ERROR(
          batch_->PutObject(record, in_rows ? std::span<const uint64_t>(sums) : std::span<const uint64_t>()));
    }
    object->fate = Fate::kNamed;
    const NameRow row{candidate.is_inline ? NameRow::kInline : uint8_t{0}, candidate.generation, {}};
    bool named = false;
    for (const std::string& name : candidate.names) {
      const bool is_free = ValidateName(name).ok() && taken_.emplace(name, candidate.generation).second;
      if (is_free) {
        if (candidate.source == Source::kTrailer) batch_->PutName(name, row);
        object->name = named ? object->name : name;
        named = true;
      }
      // A newer object's row is there already, and stays.
    }
    if (named) return absl::OkStatus();
    object->fate = Fate::kRenamed;
    object->name = SpareName(candidate.names.empty() ? "" : candidate.names[0], candidate.generation);
    taken_.emplace(object->name, candidate.generation);
    batch_->PutName(object->name, row);
    return absl::OkStatus();
  }

  std::string SpareName(const std::string& name, uint64_t generation) const {
    std::string spare = absl::StrCat(name, "@", generation);
    if (!ValidateName(spare).ok()) spare = absl::StrCat("salvaged@", generation);
    while (taken_.contains(spare)) spare += "@";
    return spare;
  }

  void DropFromBackup(const Candidate& candidate) {
    batch_->DeleteObject(candidate.generation);
    for (const std::string& name : candidate.names) {
      if (taken_.contains(name)) continue;  // a newer object has it by now
      ++report_.lost_names;
      batch_->DeleteName(name);
    }
  }

  void Count(Fate fate) {
    switch (fate) {
      case Fate::kNamed:
        ++report_.named;
        break;
      case Fate::kRenamed:
        ++report_.renamed;
        break;
      case Fate::kOverlapped:
        ++report_.overlapped;
        break;
      case Fate::kDamaged:
        ++report_.damaged;
        break;
      case Fate::kUnreadable:
        ++report_.unreadable;
        break;
    }
  }

  absl::Status WriteState() {
    batch_->PutSuper(super_);
    for (const FoundFile& file : found_.files) {
      batch_->PutFile(file.file->row);
      batch_->PutDevice(
          {.uuid = file.label.device_uuid, .tier_id = file.label.tier_id, .tier_name = file.label.tier_name});
      batch_->PutFsyncSlot(file.label.file_id, file.file->slot_seq);
    }
    TS_RETURN_IF_ERROR(CommitBatchNow());
    return CountInline();
  }

  absl::Status CountInline() {
    InlineCountRow count;
    TS_RETURN_IF_ERROR(
        index_->ScanRows(IndexFamily::kInline, [&](std::span<const std::byte>, std::span<const std::byte> value) {
          if (const auto row = DecodeInlineRow(value); row.ok()) {
            ++count.rows;
            count.bytes += row->record.logical_bytes;
          }
          return true;
        }));
    batch_->PutInlineCount(count);
    return CommitBatchNow();
  }

  absl::Status CommitBatchNow() {
    TS_RETURN_IF_ERROR(index_->Commit(*batch_, ++commit_));
    batch_ = index_->NewBatch();
    return absl::OkStatus();
  }

  Disk& disk_;
  const std::string& shelf_;
  const SalvageOptions& options_;
  ShelfFiles found_;
  SlotSummary slots_;
  SuperRow super_;
  uint64_t commit_ = 0;
  std::unique_ptr<Index> index_;
  std::unique_ptr<CommitBatch> batch_;
  std::vector<Candidate> candidates_;
  uint64_t newest_in_backup_ = 0;
  std::unordered_map<uint64_t, size_t> in_backup_;  // generation -> in candidates_, which it precedes
  std::unordered_set<uint64_t> accepted_;           // generations
  ClaimedSpace claimed_;
  std::unordered_map<std::string, uint64_t> taken_;  // name -> generation
  SalvageReport report_;
};

}  // namespace

absl::StatusOr<SalvageReport> SalvageIndex(const std::string& path, const SalvageOptions& options) {
  std::unique_ptr<Disk> own_disk;
  if (options.disk == nullptr) own_disk = NewLinuxDisk();
  const std::string shelf = AbsolutePath(path);
  return Salvager(options.disk == nullptr ? *own_disk : *options.disk, shelf, options).Run();
}

absl::StatusOr<RestoreReport> RestoreShelfIndex(const std::string& path, const std::string& backup, Disk* disk) {
  std::unique_ptr<Disk> own_disk;
  if (disk == nullptr) {
    own_disk = NewLinuxDisk();
    disk = own_disk.get();
  }
  const std::string shelf = AbsolutePath(path);
  TS_ASSIGN_OR_RETURN(const ShelfFiles found, FindShelfFiles(*disk, shelf, {.skip_damaged = true}));
  TS_ASSIGN_OR_RETURN(const auto locks, LockShelf(*disk, shelf, {}));
  const StagingDirectory staging(JoinPath(shelf, kNewIndexName));
  TS_RETURN_IF_ERROR(RestoreIndex(backup, staging.path()));
  TS_ASSIGN_OR_RETURN(const IndexProbe probe, ProbeIndex(staging.path(), ProbeMode::kPointInTime, {}));
  if (!probe.super.has_value() || probe.super->store_uuid != found.store_file.store_uuid) {
    return absl::DataLossError(
        absl::StrCat("the backup ", backup, " is not of store ", UuidText(found.store_file.store_uuid)));
  }
  RestoreReport report;
  report.commit = probe.commit.commit;
  report.witnessed = SummarizeSlots(found.files).durable_commit;
  TS_ASSIGN_OR_RETURN(report.old_index, SwapIndex(*disk, shelf, kNewIndexName));
  return report;
}

}  // namespace tensorshelf
