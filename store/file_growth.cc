#include "store/file_growth.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/foundation/status_macros.h"
#include "store/options.h"
#include "store/shelf_files.h"
#include "store/uuid.h"
#include "store/witness_slot.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kCapacityStep = uint64_t{64} << 10;
constexpr uint32_t kFileIdMax = 99'999'999;  // eight digits

// Who may read the new ones: whoever may read those that are there.
uint32_t Mode(const std::string& like, uint32_t otherwise) {
  struct stat status {};
  return stat(like.c_str(), &status) == 0 ? status.st_mode & 0777 : otherwise;
}

}  // namespace

Label ActiveLabel(const Label& joining) {
  Label label = joining;
  label.state = LabelState::kActive;
  ++label.label_seq;
  return label;
}

FileGrowth::FileGrowth(Disk& disk, std::string shelf, const GrowOptions& options, std::vector<ExistingFile> existing,
                       StoreFile store_file)
    : disk_(disk),
      shelf_(std::move(shelf)),
      options_(options),
      existing_(std::move(existing)),
      old_store_file_(store_file),
      store_file_(std::move(store_file)) {
  for (const ExistingFile& file : existing_) next_file_id_ = std::max(next_file_id_, file.label.file_id + 1);
}

absl::StatusOr<std::vector<std::string>> FileGrowth::NewDevices() const {
  std::vector<std::string> devices;
  for (const std::string& device : options_.devices) {
    if (FileIn(device) != nullptr) continue;
    TS_RETURN_IF_ERROR(CheckUnused(device));
    devices.push_back(device);
  }
  return devices;
}

absl::Status FileGrowth::ChooseDirectories() {
  directories_ = options_.devices;
  for (size_t i = 0; options_.devices.empty() && i < existing_.size(); ++i) {
    const std::string& directory = existing_[i].directory;
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

const ExistingFile* FileGrowth::FileIn(const std::string& directory) const {
  const auto file = std::ranges::find(existing_, directory, &ExistingFile::directory);
  return file == existing_.end() ? nullptr : &*file;
}

absl::Status FileGrowth::CheckUnused(const std::string& directory) const {
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

absl::Status FileGrowth::MakeDirectory(const std::string& directory) const {
  TS_RETURN_IF_ERROR(CheckUnused(directory));
  TS_ASSIGN_OR_RETURN(const PathInfo info, disk_.Stat(directory));
  if (info.kind != PathInfo::Kind::kAbsent) return absl::OkStatus();
  TS_RETURN_IF_ERROR(disk_.MakeDirectory(directory, Mode(shelf_, 0700)));
  return disk_.SyncDirectory(std::filesystem::path(directory).parent_path().string());
}

absl::Status FileGrowth::MakeFile(const std::string& directory, uint64_t epoch, uint64_t commit) {
  const ExistingFile* beside = FileIn(directory);
  const Label& like = beside == nullptr ? existing_[0].label : beside->label;
  if (beside == nullptr) TS_RETURN_IF_ERROR(MakeDirectory(directory));
  NewFile& made = files_.emplace_back();
  Label& label = made.label;
  label.file_id = next_file_id_++;
  label.label_seq = 1;
  label.store_uuid = store_file_.store_uuid;
  label.tier_name = like.tier_name;
  if (beside != nullptr) {
    label.device_uuid = like.device_uuid;
    label.tier_id = like.tier_id;
  } else {
    TS_ASSIGN_OR_RETURN(label.device_uuid, RandomUuid());
    store_file_.devices.push_back({label.device_uuid, PathHint(shelf_, directory)});
  }
  label.size = kDataBegin + data_bytes_ + kDataTailBytes;
  label.data_begin = kDataBegin;
  label.data_end = kDataBegin + data_bytes_;
  label.compat = existing_[0].label.compat;
  label.ro_compat = existing_[0].label.ro_compat;
  label.incompat = existing_[0].label.incompat;
  label.state = LabelState::kJoining;
  label.created_ns = static_cast<uint64_t>(absl::GetCurrentTimeNanos());
  const std::string path = JoinPath(directory, DataFileName(label.file_id));
  TS_ASSIGN_OR_RETURN(made.file,
                      disk_.Open(path, {.writable = true, .create = true, .mode = Mode(existing_[0].path, 0600)}));
  made.path = path;
  made.directory = directory;
  TS_RETURN_IF_ERROR(made.file->Allocate(label.size));
  TS_RETURN_IF_ERROR(WriteLabels(*made.file, label));
  TS_RETURN_IF_ERROR(WriteSlot(*made.file, {.file_id = label.file_id,
                                            .store_uuid = label.store_uuid,
                                            .slot_seq = 1,
                                            .epoch = epoch,
                                            .durable_commit = commit,
                                            .filled_until_bytes = label.data_begin}));
  TS_RETURN_IF_ERROR(made.file->Sync());
  return disk_.SyncDirectory(directory);
}

absl::Status FileGrowth::Make(uint64_t epoch, uint64_t commit) {
  TS_RETURN_IF_ERROR(ChooseDirectories());
  absl::Status status;
  for (size_t i = 0; i < directories_.size() && status.ok(); ++i) status = MakeFile(directories_[i], epoch, commit);
  if (status.ok() && !(store_file_ == old_store_file_)) {
    status = ReplaceFile(disk_, JoinPath(shelf_, kStoreFileName), FormatStoreFile(store_file_));
  }
  if (!status.ok()) RemoveFiles();
  return status;
}

void FileGrowth::RemoveFiles() {
  for (NewFile& file : files_) {
    if (file.path.empty()) continue;
    file.file.reset();
    disk_.Remove(file.path).IgnoreError();
  }
}

void FileGrowth::PutRows(CommitBatch& batch) const {
  for (const NewFile& file : files_) {
    const Label& label = file.label;
    batch.PutFile({label.file_id, label.device_uuid, label.size, label.data_begin, label.data_end});
    batch.PutDevice({.uuid = label.device_uuid, .tier_id = label.tier_id, .tier_name = label.tier_name});
    batch.PutFsyncSlot(label.file_id, 1);
  }
}

absl::Status FileGrowth::Activate() {
  for (NewFile& file : files_) TS_RETURN_IF_ERROR(WriteLabels(*file.file, ActiveLabel(file.label)));
  return absl::OkStatus();
}

GrowReport FileGrowth::Report() const {
  GrowReport report;
  for (const NewFile& file : files_) {
    report.files.push_back(file.path);
    report.capacity += file.label.data_end - file.label.data_begin;
  }
  return report;
}

}  // namespace tensorshelf
