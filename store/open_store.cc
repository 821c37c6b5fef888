// Opens a store. Read-write, the steps and their order are store/FORMAT.md's "Open":
//   1 locks, STORE, labels  2 fdatasync, slots  3 index probes  4 compare  5 open the index, new epoch into the slots
//   6 free space: freemap if it is of exactly this state, else a scan  7 go
// Every step before 5 changes nothing on disk.

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "store/freemap.h"
#include "store/open_checks.h"
#include "store/process_identity.h"
#include "store/space_scan.h"
#include "store/store_core.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kFreemapBytesMax = uint64_t{8} << 30;

}  // namespace

// One open, step by step. Confined to one thread.
class StoreOpener {
 public:
  StoreOpener(const std::string& path, const StoreOptions& options) : core_(new StoreCore) {
    core_->path_ = path;
    core_->options_ = options;
    core_->options_.io.trace = &core_->trace_;
    core_->meters_.set_trace(&core_->trace_);
  }

  absl::StatusOr<std::shared_ptr<StoreCore>> Run() {
    SetUpDisk();
    core_->opened_ns_ = absl::ToUnixNanos(absl::Now());
    // STORE first: a directory that holds no store is not given a lock file.
    TS_ASSIGN_OR_RETURN(const PathInfo info, disk().Stat(JoinPath(core_->path_, kStoreFileName)));
    if (info.kind == PathInfo::Kind::kFile && wants_to_write()) TS_RETURN_IF_ERROR(TakeLock(core_->path_));
    TS_RETURN_IF_ERROR(FindFiles());
    TS_RETURN_IF_ERROR(wants_to_write() ? TakeDeviceLocks() : FindWriter());
    TS_RETURN_IF_ERROR(CheckAgainstIndex());
    TS_RETURN_IF_ERROR(OpenIndex());
    TS_RETURN_IF_ERROR(BuildDevices());
    core_->PrepareCounters();
    TS_RETURN_IF_ERROR(wants_to_write() ? StartWriter() : StartReader());
    return core_;
  }

 private:
  bool wants_to_write() const {
    return core_->options_.mode == StoreOptions::Mode::kReadWrite && !core_->options_.degraded &&
           core_->read_only_reason_.empty();
  }
  Disk& disk() { return *core_->disk_; }
  std::string index_path() const { return JoinPath(core_->path_, kIndexName); }
  void Notice(const std::string& message) {
    if (core_->options_.notice) core_->options_.notice(message);
  }

  void SetUpDisk() {
    core_->disk_ = core_->options_.disk;
    if (core_->disk_ == nullptr) {
      core_->own_disk_ = NewLinuxDisk({.on_notice = core_->options_.notice});
      core_->disk_ = core_->own_disk_.get();
    }
    if (core_->options_.notice && !core_->options_.memory_hooks.notice) {
      core_->options_.memory_hooks.notice = core_->options_.notice;
    }
  }

  absl::Status TakeLock(const std::string& directory) {
    if (TS_MUTATE(skip_lock)) return absl::OkStatus();
    if (core_->holder_text_.empty()) core_->holder_text_ = HolderText();
    auto lock = disk().Lock(JoinPath(directory, kLockFileName), core_->holder_text_);
    if (absl::IsFailedPrecondition(lock.status())) {
      return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kLocked, std::string(lock.status().message()));
    }
    if (!lock.ok()) return lock.status();
    core_->locks_.push_back(*std::move(lock));
    return absl::OkStatus();
  }

  absl::Status TakeDeviceLocks() {
    for (const std::string& directory : found_.device_directories) {
      if (directory != core_->path_) TS_RETURN_IF_ERROR(TakeLock(directory));
    }
    return absl::OkStatus();
  }

  // Read-only: is somebody writing?
  absl::Status FindWriter() {
    const auto holder = disk().LockHolder(JoinPath(core_->path_, kLockFileName));
    if (holder.ok()) {
      core_->index_mode_ = Index::Mode::kBesideWriter;
      return absl::OkStatus();
    }
    return absl::IsNotFound(holder.status()) ? absl::OkStatus() : holder.status();
  }

  absl::Status FindFiles() {
    TS_ASSIGN_OR_RETURN(found_, FindShelfFiles(disk(), core_->path_,
                                               {.extra_directories = core_->options_.devices,
                                                .writable = wants_to_write(),
                                                .skip_damaged = core_->options_.degraded}));
    core_->store_file_ = found_.store_file;
    for (const std::string& notice : found_.notices) Notice(notice);
    for (const FoundFile& file : found_.files) {
      if (file.access == FeatureAccess::kReadOnly && core_->read_only_reason_.empty()) {
        core_->read_only_reason_ = absl::StrCat(
            file.file->path,
            " has ro_compat features that this build does not know: ", absl::StrFormat("0x%x", file.label.ro_compat));
      }
    }
    if (core_->options_.degraded) core_->read_only_reason_ = "opened degraded";
    if (core_->options_.mode == StoreOptions::Mode::kReadOnly) core_->read_only_reason_ = "opened for reading";
    return absl::OkStatus();
  }

  absl::Status CheckAgainstIndex() {
    if (wants_to_write() && !TS_MUTATE(skip_sync_at_open)) {
      // What an earlier process left visible but not durable must be durable before it is trusted.
      for (const FoundFile& file : found_.files) TS_RETURN_IF_ERROR(file.file->file->Sync());
    }
    const SlotSummary before = SummarizeSlots(found_.files);
    const bool beside_writer = core_->index_mode_ == Index::Mode::kBesideWriter;
    IndexProbe probe;
    if (!beside_writer) {
      TS_ASSIGN_OR_RETURN(probe, ProbeIndex(index_path(), ProbeMode::kPointInTime, core_->options_.index));
      if (!probe.exists) {
        return absl::DataLossError(
            absl::StrCat("the index ", index_path(), " is missing (restore a backup or salvage)"));
      }
      std::optional<IndexProbe> skipping;
      if (!before.clean) {
        TS_ASSIGN_OR_RETURN(skipping,
                            ProbeIndex(index_path(), ProbeMode::kSkipCorruptedRecords, core_->options_.index));
      }
      TS_RETURN_IF_ERROR(CheckCommits(probe, skipping, before, found_.files, core_->options_.accept_lost_commits));
      TS_RETURN_IF_ERROR(CheckSuper(probe.super));
      TS_ASSIGN_OR_RETURN(core_->orphan_files_, MatchFileRows(found_, probe.files, core_->options_.degraded));
    }
    slots_ = before;
    commit_seen_ = probe.commit.commit;
    return absl::OkStatus();
  }

  absl::Status CheckSuper(const std::optional<SuperRow>& super) {
    if (!super.has_value()) return absl::DataLossError(absl::StrCat(index_path(), ": it has no super row"));
    if (super->store_uuid != core_->store_file_.store_uuid) {
      return absl::DataLossError(absl::StrCat(index_path(), " belongs to store ", UuidText(super->store_uuid),
                                              ", not to ", UuidText(core_->store_file_.store_uuid)));
    }
    TS_ASSIGN_OR_RETURN(const FeatureAccess access, CheckFeatures(index_path(), super->ro_compat, super->incompat));
    if (access == FeatureAccess::kReadOnly && core_->read_only_reason_.empty()) {
      core_->read_only_reason_ = absl::StrCat(index_path(), " has ro_compat features that this build does not know: ",
                                              absl::StrFormat("0x%x", super->ro_compat));
    }
    core_->super_ = *super;
    return absl::OkStatus();
  }

  absl::Status OpenIndex() {
    if (wants_to_write()) {
      core_->index_mode_ = Index::Mode::kReadWrite;
      uint64_t capacity = 0;
      for (const FoundFile& file : found_.files) capacity += file.file->row.size;
      TS_RETURN_IF_ERROR(core_->PrepareBallast(capacity));
    }
    TS_ASSIGN_OR_RETURN(core_->index_, Index::Open(index_path(), core_->index_mode_, core_->options_.index));
    if (core_->index_mode_ == Index::Mode::kBesideWriter) {
      TS_ASSIGN_OR_RETURN(const auto super, core_->index_->ReadSuper());
      TS_RETURN_IF_ERROR(CheckSuper(super));
      TS_ASSIGN_OR_RETURN(const auto rows, core_->index_->ReadFiles());
      TS_ASSIGN_OR_RETURN(core_->orphan_files_, MatchFileRows(found_, rows, core_->options_.degraded));
    }
    for (const std::string& orphan : core_->orphan_files_) {
      Notice(absl::StrCat(orphan, " is a data file that the index does not know (orphan)"));
    }
    TS_ASSIGN_OR_RETURN(const CommitRow commit, core_->index_->ReadCommit());
    core_->published_.store(TS_MUTATE(reuse_commit_numbers) ? commit.commit
                                                            : std::max(commit.commit, slots_.durable_commit));
    return absl::OkStatus();
  }

  absl::Status BuildDevices() {
    std::vector<std::unique_ptr<DataFile>> files;
    for (FoundFile& file : found_.files) files.push_back(std::move(file.file));
    const absl::StatusOr<std::vector<TuningRow>> tunings = core_->index_->ReadTunings();
    if (!tunings.ok()) {
      Notice(absl::StrCat("devices are driven by the defaults: ", std::string(tunings.status().message())));
    }
    TS_ASSIGN_OR_RETURN(core_->devices_, DeviceSet::Create(core_->disk_, core_->options_, std::move(files),
                                                           tunings.value_or(std::vector<TuningRow>{})));
    core_->reader_ = std::make_unique<Reader>(core_->devices_.get(), core_->index_.get());
    return core_->SetUpMemoryTier();
  }

  absl::Status StartReader() {
    core_->allocator_ = std::make_unique<ExtentAllocator>();  // unused but for ephemeral names, of which there are none
    core_->ephemeral_ = std::make_unique<EphemeralTable>(core_->allocator_.get(), &core_->leases_,
                                                         /*memory_tier=*/nullptr);
    return absl::OkStatus();
  }

  std::vector<SpaceFile> SpaceFiles() const {
    std::vector<SpaceFile> files;
    for (const auto& file : core_->devices_->files()) {
      files.push_back({file->row.file_id, file->row.data_begin / kUnitBytes, file->row.data_end / kUnitBytes});
    }
    return files;
  }

  // The freemap, if it is of exactly this epoch and commit; else nothing.
  std::optional<SpaceScan> LoadFreemap() {
    const std::string path = JoinPath(core_->path_, kFreemapName);
    const auto text = ReadFile(disk(), path, kFreemapBytesMax);
    if (!text.ok()) return std::nullopt;
    auto freemap = DecodeFreemap(*text);
    if (!freemap.ok() || freemap->store_uuid != core_->store_file_.store_uuid) return std::nullopt;
    const bool of_this_state = freemap->epoch == slots_.epoch && freemap->commit == commit_seen_ && slots_.clean;
    if (!of_this_state && !TS_MUTATE(trust_old_freemap)) return std::nullopt;
    const std::vector<SpaceFile> files = SpaceFiles();
    std::vector<SpaceFile> mapped;
    std::vector<Extent> free;
    for (const Freemap::FileMap& map : freemap->files) {
      mapped.push_back(map.file);
      for (const UnitRun& run : map.free) {
        free.push_back({map.file.file_id, static_cast<uint32_t>(run.units), run.first});
      }
    }
    if (mapped != files) return std::nullopt;
    SpaceScan scan;
    auto allocator = ExtentAllocator::FromFreeExtents(files, std::move(free));
    if (!allocator.ok()) return std::nullopt;
    scan.allocator = *std::move(allocator);
    scan.counts.names = freemap->name_count;
    scan.counts.objects = freemap->object_count;
    for (const auto& shared : freemap->shared) scan.counts.shared[shared.generation] = shared.names;
    scan.orphans = freemap->orphans;
    return scan;
  }

  absl::Status MarkBadUnits(SpaceScan& scan) {
    TS_ASSIGN_OR_RETURN(const std::vector<Extent> bad, core_->index_->ReadBadUnits());
    for (const Extent& extent : bad) {
      // What a live object still covers stays live; it becomes bad when it is dropped and fails again.
      TS_ASSIGN_OR_RETURN(const auto free,
                          scan.allocator->ReserveFreeIn(extent.file_id, extent.first_unit, extent.end_unit()));
      if (!free.empty()) scan.allocator->Move(free, SpaceState::kReserved, SpaceState::kBad);
    }
    return absl::OkStatus();
  }

  // STORE is there, so the store is finished; a creation that was cut off right behind it left its marks, and the next
  // creation in such a directory would sweep it.
  absl::Status RemoveCreationMarks() {
    std::set<std::string> directories{core_->path_};
    for (const auto& file : core_->devices_->files()) directories.insert(file->directory);
    for (const std::string& directory : directories) {
      const absl::Status removed = disk().Remove(JoinPath(directory, kCreatingFileName));
      if (absl::IsNotFound(removed)) continue;
      TS_RETURN_IF_ERROR(removed);
      TS_RETURN_IF_ERROR(disk().SyncDirectory(directory));
    }
    return absl::OkStatus();
  }

  absl::Status StartWriter() {
    TS_RETURN_IF_ERROR(RemoveCreationMarks());
    // The new epoch goes into a slot of every file before anything is written under it, so that no number is used
    // twice.
    core_->super_.epoch = std::max(slots_.epoch, core_->super_.epoch) + (TS_MUTATE(reuse_epoch) ? 0 : 1);
    const WitnessSlot slot{.file_id = 0,
                           .store_uuid = core_->super_.store_uuid,
                           .epoch = core_->super_.epoch,
                           .durable_commit = core_->published_.load()};
    std::vector<DataFile*> files;
    for (const auto& file : core_->devices_->files()) files.push_back(file);
    if (TS_MUTATE(skip_epoch_slot)) files.clear();
    for (DataFile* file : files) TS_RETURN_IF_ERROR(core_->devices_->WriteNextSlot(*file, slot));
    for (const absl::Status& status : core_->devices_->Sync(files)) TS_RETURN_IF_ERROR(status);

    std::optional<SpaceScan> scan = LoadFreemap();
    if (!scan.has_value()) {
      auto scanned = ScanSpace(*core_->index_, SpaceFiles());
      if (absl::IsDataLoss(scanned.status())) return BecomeReadOnly(scanned.status());
      if (!scanned.ok()) return scanned.status();
      scan = *std::move(scanned);
    }
    TS_RETURN_IF_ERROR(MarkBadUnits(*scan));
    if (!scan->orphans.empty()) {
      Notice(absl::StrCat(scan->orphans.size(), " objects have no name and stay allocated, the first is generation ",
                          scan->orphans.front()));
    }
    core_->orphans_ = scan->orphans;
    core_->allocator_ = std::move(scan->allocator);
    TS_ASSIGN_OR_RETURN(scan->counts.inline_count, core_->index_->ReadInlineCount());
    core_->StartWriting(std::move(scan->counts));
    return absl::OkStatus();
  }

  // Which space is free is unknown: nothing may be written, everything that decodes can be read.
  absl::Status BecomeReadOnly(const absl::Status& why) {
    core_->read_only_reason_ = absl::StrCat("the index is damaged: ", std::string(why.message()));
    Notice(absl::StrCat("opened read-only: ", core_->read_only_reason_));
    return StartReader();
  }

  std::shared_ptr<StoreCore> core_;
  ShelfFiles found_;
  SlotSummary slots_;
  uint64_t commit_seen_ = 0;  // P
};

absl::StatusOr<std::shared_ptr<StoreCore>> StoreCore::Open(const std::string& path, const StoreOptions& options) {
  return StoreOpener(path, options).Run();
}

}  // namespace tensorshelf
