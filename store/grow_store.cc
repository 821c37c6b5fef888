// Steps, and what a crash after each leaves:
//   1  data files with the label "joining", a slot, their names durable      orphans
//   2  STORE with the new devices' hints                                     the same, and hints that lead to no file
//   3  one commit with the rows of all new files                             the capacity is there
//   4  their labels say "active"                                             the same

#include "store/grow_store.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "index/index.h"
#include "store/open_checks.h"
#include "store/options.h"
#include "store/shelf_files.h"
#include "store/shelf_lock.h"
#include "store/store_core.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kCapacityStep = uint64_t{64} << 10;
constexpr uint32_t kFileIdMax = 99'999'999;  // eight digits

struct NewFile {
  std::string path, directory;
  std::unique_ptr<File> file;
  Label label;
};

// One growth. Confined to one thread.
class Grower {
 public:
  Grower(Disk& disk, const std::string& shelf, const GrowOptions& options)
      : disk_(disk), shelf_(shelf), options_(options) {}

  absl::StatusOr<GrowReport> Run() {
    TS_RETURN_IF_ERROR(Inspect());
    for (const std::string& device : options_.devices) {
      if (FileIn(device) == nullptr) TS_RETURN_IF_ERROR(CheckUnused(device));
    }
    TS_ASSIGN_OR_RETURN(const auto locks, LockShelf(disk_, shelf_, options_.devices));
    TS_RETURN_IF_ERROR(Inspect());  // again, now that nobody else can change it
    TS_RETURN_IF_ERROR(CheckAgainstIndex());
    TS_RETURN_IF_ERROR(ChooseDirectories());
    absl::Status status = MakeFiles();
    if (status.ok() && !(store_file_ == found_.store_file)) {
      status = ReplaceFile(disk_, JoinPath(shelf_, kStoreFileName), FormatStoreFile(store_file_));
    }
    // From here on the outcome of an error may be that the files belong to the shelf.
    if (!status.ok()) RemoveFiles();
    TS_RETURN_IF_ERROR(status);
    TS_RETURN_IF_ERROR(CommitRows());
    for (NewFile& file : files_) {
      file.label.state = LabelState::kActive;
      ++file.label.label_seq;
      TS_RETURN_IF_ERROR(WriteLabels(*file.file, file.label));
      report_.files.push_back(file.path);
      report_.capacity += file.label.data_end - file.label.data_begin;
    }
    return report_;
  }

 private:
  std::string index_path() const { return JoinPath(shelf_, kIndexName); }

  absl::Status Inspect() {
    TS_ASSIGN_OR_RETURN(found_, FindShelfFiles(disk_, shelf_, {.extra_directories = options_.devices}));
    if (found_.files.empty()) return absl::DataLossError(absl::StrCat(shelf_, " has no data file"));
    for (const FoundFile& file : found_.files) {
      if (file.access == FeatureAccess::kReadOnly) {
        return absl::FailedPreconditionError(
            absl::StrCat(file.file->path, " has features that this version does not know: it must not change it"));
      }
    }
    store_file_ = found_.store_file;
    return absl::OkStatus();
  }

  absl::Status CheckAgainstIndex() {
    for (const FoundFile& file : found_.files) {
      TS_RETURN_IF_ERROR(file.file->file->Sync());
      next_file_id_ = std::max(next_file_id_, file.label.file_id + 1);
    }
    const SlotSummary slots = SummarizeSlots(found_.files);
    TS_ASSIGN_OR_RETURN(const IndexProbe probe, ProbeIndex(index_path(), ProbeMode::kPointInTime, {}));
    if (!probe.exists) return absl::DataLossError(absl::StrCat("the index ", index_path(), " is missing"));
    std::optional<IndexProbe> skipping;
    if (!slots.clean) {
      TS_ASSIGN_OR_RETURN(skipping, ProbeIndex(index_path(), ProbeMode::kSkipCorruptedRecords, {}));
    }
    TS_RETURN_IF_ERROR(CheckCommits(probe, skipping, slots, found_.files, /*accept_lost_commits=*/false));
    TS_ASSIGN_OR_RETURN(const std::vector<std::string> orphans, MatchFileRows(found_, probe.files, /*degraded=*/false));
    if (!orphans.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat(orphans.front(), " is a data file that the index does not know; see fsck"));
    }
    commit_ = std::max(probe.commit.commit, slots.durable_commit);
    epoch_ = slots.epoch;
    return absl::OkStatus();
  }

  absl::Status ChooseDirectories() {
    for (const std::string& device : options_.devices) directories_.push_back(AbsolutePath(device));
    for (size_t i = 0; options_.devices.empty() && i < found_.files.size(); ++i) {
      const std::string& directory = found_.files[i].file->directory;
      if (std::ranges::find(directories_, directory) == directories_.end()) directories_.push_back(directory);
    }
    const uint64_t each = options_.capacity / directories_.size();
    if (each < kCapacityMin) {
      return absl::InvalidArgumentError(absl::StrCat("capacity ", options_.capacity, " over ", directories_.size(),
                                                     " devices is below the minimum of ", kCapacityMin,
                                                     " bytes a device"));
    }
    data_bytes_ = (each + kCapacityStep - 1) / kCapacityStep * kCapacityStep;
    if (each > kFileBytesMax || kDataBegin + data_bytes_ + kDataTailBytes > kFileBytesMax) {
      return absl::InvalidArgumentError(
          absl::StrCat(each, " bytes a device are over the largest data file of ", kFileBytesMax));
    }
    if (next_file_id_ > kFileIdMax - directories_.size()) {
      return absl::ResourceExhaustedError("there is no number left for a data file");
    }
    return absl::OkStatus();
  }

  const FoundFile* FileIn(const std::string& directory) const {
    const auto file = std::ranges::find(found_.files, directory,
                                        [](const FoundFile& candidate) { return candidate.file->directory; });
    return file == found_.files.end() ? nullptr : &*file;
  }

  // Before a lock file is made in it.
  absl::Status CheckUnused(const std::string& directory) {
    TS_ASSIGN_OR_RETURN(const PathInfo info, disk_.Stat(directory));
    if (info.kind == PathInfo::Kind::kAbsent) return absl::OkStatus();
    if (info.kind != PathInfo::Kind::kDirectory) {
      return absl::AlreadyExistsError(absl::StrCat(directory, " is there and is not a directory"));
    }
    TS_ASSIGN_OR_RETURN(std::vector<std::string> names, disk_.List(directory));
    std::erase(names, kLockFileName);
    if (names.empty()) return absl::OkStatus();
    return absl::AlreadyExistsError(absl::StrCat(directory, " is not empty: it holds ", names.front()));
  }

  absl::Status MakeDirectory(const std::string& directory) {
    TS_RETURN_IF_ERROR(CheckUnused(directory));
    TS_ASSIGN_OR_RETURN(const PathInfo info, disk_.Stat(directory));
    if (info.kind != PathInfo::Kind::kAbsent) return absl::OkStatus();
    TS_RETURN_IF_ERROR(disk_.MakeDirectory(directory, Mode(shelf_, 0700)));
    return disk_.SyncDirectory(std::filesystem::path(directory).parent_path().string());
  }

  // Who may read the new ones: whoever may read those that are there.
  static uint32_t Mode(const std::string& like, uint32_t otherwise) {
    struct stat status {};
    return stat(like.c_str(), &status) == 0 ? status.st_mode & 0777 : otherwise;
  }

  absl::Status MakeFiles() {
    for (const std::string& directory : directories_) {
      const FoundFile* beside = FileIn(directory);
      if (beside == nullptr) TS_RETURN_IF_ERROR(MakeDirectory(directory));
      NewFile& made = files_.emplace_back();
      Label& label = made.label;
      label.file_id = next_file_id_++;
      label.label_seq = 1;
      label.store_uuid = store_file_.store_uuid;
      if (beside != nullptr) {
        label.device_uuid = beside->label.device_uuid;
        label.tier_id = beside->label.tier_id;
        label.tier_name = beside->label.tier_name;
      } else {
        TS_ASSIGN_OR_RETURN(label.device_uuid, RandomUuid());
        label.tier_name = found_.files[0].label.tier_name;
        store_file_.devices.push_back({label.device_uuid, PathHint(shelf_, directory)});
      }
      label.size = kDataBegin + data_bytes_ + kDataTailBytes;
      label.data_begin = kDataBegin;
      label.data_end = kDataBegin + data_bytes_;
      label.compat = found_.files[0].label.compat;
      label.ro_compat = found_.files[0].label.ro_compat;
      label.incompat = found_.files[0].label.incompat;
      label.state = LabelState::kJoining;
      label.created_ns = static_cast<uint64_t>(absl::GetCurrentTimeNanos());
      made.directory = directory;
      made.path = JoinPath(directory, DataFileName(label.file_id));
      TS_ASSIGN_OR_RETURN(
          made.file,
          disk_.Open(made.path, {.writable = true, .create = true, .mode = Mode(found_.files[0].file->path, 0600)}));
      TS_RETURN_IF_ERROR(made.file->Allocate(label.size));
      TS_RETURN_IF_ERROR(WriteLabels(*made.file, label));
      TS_RETURN_IF_ERROR(WriteSlot(*made.file, {.file_id = label.file_id,
                                                .store_uuid = label.store_uuid,
                                                .slot_seq = 1,
                                                .epoch = epoch_,
                                                .durable_commit = commit_,
                                                .filled_until_bytes = label.data_begin}));
      TS_RETURN_IF_ERROR(made.file->Sync());
      TS_RETURN_IF_ERROR(disk_.SyncDirectory(directory));
    }
    return absl::OkStatus();
  }

  // What cannot be removed is an orphan, which fsck knows.
  void RemoveFiles() {
    for (NewFile& file : files_) {
      if (file.file == nullptr) continue;
      file.file.reset();
      disk_.Remove(file.path).IgnoreError();
    }
  }

  absl::Status CommitRows() {
    TS_ASSIGN_OR_RETURN(const auto index, Index::Open(index_path(), Index::Mode::kReadWrite, {}));
    const auto batch = index->NewBatch();
    for (const NewFile& file : files_) {
      const Label& label = file.label;
      batch->PutFile({label.file_id, label.device_uuid, label.size, label.data_begin, label.data_end});
      batch->PutDevice({.uuid = label.device_uuid, .tier_id = label.tier_id, .tier_name = label.tier_name});
      batch->PutFsyncSlot(label.file_id, 1);
    }
    report_.commit = commit_ + 1;
    TS_RETURN_IF_ERROR(index->Commit(*batch, report_.commit));
    return index->Flush();
  }

  Disk& disk_;
  const std::string& shelf_;
  const GrowOptions& options_;
  ShelfFiles found_;
  StoreFile store_file_;
  std::vector<std::string> directories_;
  std::vector<NewFile> files_;
  uint32_t next_file_id_ = 1;
  uint64_t data_bytes_ = 0;  // a device
  uint64_t commit_ = 0;      // the newest
  uint64_t epoch_ = 0;
  GrowReport report_;
};

}  // namespace

absl::StatusOr<GrowReport> GrowStore(const std::string& path, const GrowOptions& options) {
  std::unique_ptr<Disk> own_disk;
  if (options.disk == nullptr) own_disk = NewLinuxDisk();
  const std::string shelf = AbsolutePath(path);
  GrowOptions absolute = options;
  for (std::string& device : absolute.devices) device = AbsolutePath(device);
  return Grower(options.disk == nullptr ? *own_disk : *options.disk, shelf, absolute).Run();
}

}  // namespace tensorshelf
