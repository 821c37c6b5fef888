// Makes a new store. Order, and what a crash leaves: CREATING in every directory first and STORE last; without STORE
// nothing is a store, and the next Create sweeps away what stands beside a CREATING file.

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "store/background_fill.h"
#include "store/device_set.h"
#include "store/label.h"
#include "store/layout.h"
#include "store/process_identity.h"
#include "store/shelf_files.h"
#include "store/store.h"
#include "store/store_core.h"
#include "store/tuning.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kCapacityStep = uint64_t{64} << 10;
constexpr uint64_t kIndexRoom = uint64_t{80} << 20;  // ballast and headroom that an empty store wants beside its data
constexpr uint64_t kFillStep = uint64_t{64} << 20;

// One creation, step by step. Confined to one thread. What it made is removed again unless Finish was reached.
class StoreCreator {
 public:
  StoreCreator(const std::string& path, const CreateOptions& options) : path_(path), options_(options) {
    disk_ = options.disk;
    if (disk_ == nullptr) {
      own_disk_ = NewLinuxDisk();
      disk_ = own_disk_.get();
    }
    for (const std::string& device : options.devices) devices_.push_back(AbsolutePath(device));
    if (devices_.empty()) devices_.push_back(path_);
  }

  absl::Status Run() {
    TS_RETURN_IF_ERROR(CheckOptions());
    TS_RETURN_IF_ERROR(TakeDirectories());
    absl::Status status = MakeDirectories();
    if (status.ok()) status = TakeLocks();
    if (status.ok()) {
      status = Build();
      if (!status.ok()) {
        files_.clear();
        for (const std::string& directory : directories_) Sweep(directory);
      }
    }
    if (!status.ok()) RemoveDirectories();
    return status;
  }

 private:
  uint32_t file_mode() const { return options_.group_readable ? 0640 : 0600; }
  uint32_t directory_mode() const { return options_.group_readable ? 0750 : 0700; }

  absl::Status CheckOptions() {
    const uint64_t each = options_.capacity / devices_.size();
    if (each < kCapacityMin) {
      return absl::InvalidArgumentError(absl::StrCat("capacity ", options_.capacity, " over ", devices_.size(),
                                                     " devices is below the minimum of ", kCapacityMin,
                                                     " bytes a device"));
    }
    data_bytes_ = (each + kCapacityStep - 1) / kCapacityStep * kCapacityStep;
    file_bytes_ = kDataBegin + data_bytes_ + kDataTailBytes;
    if (file_bytes_ > kFileBytesMax || file_bytes_ < data_bytes_) {
      return absl::InvalidArgumentError(absl::StrCat("capacity ", options_.capacity, " makes a data file of ",
                                                     file_bytes_, " bytes, the largest is ", kFileBytesMax));
    }
    std::vector<std::string> sorted = devices_;
    std::sort(sorted.begin(), sorted.end());
    const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
    if (twice != sorted.end()) return absl::InvalidArgumentError(absl::StrCat("device ", *twice, " is named twice"));
    return absl::OkStatus();
  }

  // Absent, empty, or left over by a creation that did not finish.
  absl::Status TakeDirectories() {
    std::vector<std::string> directories = devices_;
    if (std::find(directories.begin(), directories.end(), path_) == directories.end()) {
      directories.insert(directories.begin(), path_);
    }
    for (const std::string& directory : directories) {
      TS_ASSIGN_OR_RETURN(const PathInfo info, disk_->Stat(directory));
      if (info.kind == PathInfo::Kind::kAbsent) {
        missing_.push_back(directory);
        continue;
      }
      if (info.kind != PathInfo::Kind::kDirectory) {
        return absl::AlreadyExistsError(absl::StrCat(directory, " is there and is not a directory"));
      }
      TS_RETURN_IF_ERROR(CheckUnused(directory));
    }
    directories_ = directories;
    return absl::OkStatus();
  }

  absl::Status CheckUnused(const std::string& directory) {
    TS_ASSIGN_OR_RETURN(std::vector<std::string> names, disk_->List(directory));
    std::erase(names, kLockFileName);  // this creation's, or one that stopped before its CREATING
    const auto has = [&](const char* name) { return std::find(names.begin(), names.end(), name) != names.end(); };
    if (has(kStoreFileName)) return absl::AlreadyExistsError(absl::StrCat(directory, " is a store already"));
    if (!names.empty() && !has(kCreatingFileName)) {
      return absl::AlreadyExistsError(
          absl::StrCat(directory, " is not empty: it holds ", names.front(),
                       names.size() > 1 ? absl::StrCat(" and ", names.size() - 1, " more") : ""));
    }
    return absl::OkStatus();
  }

  // Keeps out another creation, and keeps this one out of a device of an open store whose CREATING is still there.
  absl::Status TakeLocks() {
    for (const std::string& directory : directories_) {
      auto lock = disk_->Lock(JoinPath(directory, kLockFileName), HolderText());
      if (absl::IsFailedPrecondition(lock.status())) {
        return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kLocked,
                         std::string(lock.status().message()));
      }
      if (!lock.ok()) return lock.status();
      locks_.push_back(*std::move(lock));
      TS_RETURN_IF_ERROR(CheckUnused(directory));  // again: the last one may have finished meanwhile
    }
    return absl::OkStatus();
  }

  absl::Status MakeDirectories() {
    for (const std::string& directory : missing_) {
      TS_RETURN_IF_ERROR(disk_->MakeDirectory(directory, directory_mode()));
      // What is synced inside is lost with the name that leads to it.
      TS_RETURN_IF_ERROR(disk_->SyncDirectory(std::filesystem::path(directory).parent_path().string()));
    }
    return absl::OkStatus();
  }

  absl::Status Build() {
    for (const std::string& directory : directories_) Sweep(directory);
    for (const std::string& directory : directories_) {
      TS_ASSIGN_OR_RETURN(auto mark,
                          disk_->Open(JoinPath(directory, kCreatingFileName),
                                      {.writable = true, .create = true, .direct = false, .mode = file_mode()}));
      TS_RETURN_IF_ERROR(disk_->SyncDirectory(directory));
    }
    TS_RETURN_IF_ERROR(CheckRoom());
    TS_ASSIGN_OR_RETURN(store_file_.store_uuid, RandomUuid());
    for (size_t i = 0; i < devices_.size(); ++i) TS_RETURN_IF_ERROR(MakeDataFile(static_cast<uint32_t>(i + 1)));
    StoreOptions store_options;
    store_options.page_locked = false;
    TS_ASSIGN_OR_RETURN(auto devices, DeviceSet::Create(disk_, store_options, std::move(files_)));
    if (options_.prefill == Prefill::kFull) TS_RETURN_IF_ERROR(FillAll(*devices));
    if (options_.tune) {
      for (const auto& file : devices->files()) {
        TS_ASSIGN_OR_RETURN(const TuningRow tuning, TuneDevice(*disk_, *file));
        tunings_.push_back(tuning);
      }
    }
    if (options_.prefill == Prefill::kNone) {
      // Nothing to do later either: the mark says that there is nothing left to fill.
      for (const auto& file : devices->files()) file->filled_until = file->row.data_end;
    }
    TS_RETURN_IF_ERROR(MakeIndex(*devices));
    return Finish();
  }

  absl::Status CheckRoom() {
    for (const std::string& directory : devices_) {
      TS_ASSIGN_OR_RETURN(const FileSystemSpace space, disk_->Space(directory));
      const uint64_t needed = file_bytes_ + (directory == path_ ? kIndexRoom : 0);
      if (space.available_bytes < needed) {
        return MakeError(
            absl::StatusCode::kResourceExhausted, ErrorKind::kFull,
            absl::StrCat(directory, " has ", space.available_bytes, " bytes left, the store needs ", needed));
      }
    }
    return absl::OkStatus();
  }

  absl::Status MakeDataFile(uint32_t file_id) {
    const std::string& directory = devices_[file_id - 1];
    auto file = std::make_unique<DataFile>();
    file->path = JoinPath(directory, DataFileName(file_id));
    file->directory = directory;
    TS_ASSIGN_OR_RETURN(file->file, disk_->Open(file->path, {.writable = true, .create = true, .mode = file_mode()}));
    TS_RETURN_IF_ERROR(file->file->Allocate(file_bytes_));
    Label label;
    label.file_id = file_id;
    label.label_seq = 1;
    label.store_uuid = store_file_.store_uuid;
    TS_ASSIGN_OR_RETURN(label.device_uuid, RandomUuid());
    label.size = file_bytes_;
    label.data_begin = kDataBegin;
    label.data_end = kDataBegin + data_bytes_;
    label.state = LabelState::kActive;  // no store can see it before STORE is there
    label.created_ns =
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
            .count();
    label.tier_name = "nvme";
    TS_RETURN_IF_ERROR(WriteLabels(*file->file, label));
    file->row = {file_id, label.device_uuid, label.size, label.data_begin, label.data_end};
    file->filled_until = label.data_begin;
    store_file_.devices.push_back({label.device_uuid, PathHint(path_, directory)});
    files_.push_back(std::move(file));
    return disk_->SyncDirectory(directory);
  }

  absl::Status FillAll(DeviceSet& devices) {
    const uint64_t total = data_bytes_ * devices.files().size();
    uint64_t done = 0;
    for (const auto& file : devices.files()) {
      for (uint64_t at = file->row.data_begin; at < file->row.data_end; at += kFillStep) {
        const uint64_t end = std::min(at + kFillStep, file->row.data_end);
        TS_RETURN_IF_ERROR(FillWithZeros(devices, *file, at, end));
        done += end - at;
        if (options_.progress) options_.progress(done, total);
      }
      file->filled_until = file->row.data_end;
    }
    return absl::OkStatus();
  }

  // Slots first, then commit 1 with everything that the index must know, then the witness of commit 1.
  absl::Status MakeIndex(DeviceSet& devices) {
    IndexOptions index_options;
    index_options.observer = options_.observer;
    TS_ASSIGN_OR_RETURN(auto index, Index::Open(JoinPath(path_, kIndexName), Index::Mode::kCreate, index_options));
    SuperRow super;
    super.store_uuid = store_file_.store_uuid;
    super.epoch = 1;
    WitnessSlot slot{.file_id = 0, .store_uuid = super.store_uuid, .epoch = super.epoch};
    TS_RETURN_IF_ERROR(WriteSlots(devices, slot));
    const auto batch = index->NewBatch();
    batch->PutSuper(super);
    for (const auto& file : devices.files()) {
      batch->PutFile(file->row);
      batch->PutDevice({.uuid = file->row.device_uuid, .tier_id = 0, .tier_name = "nvme"});
      batch->PutFsyncSlot(file->row.file_id, file->slot_seq);
    }
    for (const TuningRow& tuning : tunings_) batch->PutTuning(tuning);
    TS_RETURN_IF_ERROR(index->Commit(*batch, 1));
    TS_RETURN_IF_ERROR(index->Flush());
    slot.durable_commit = 1;
    return WriteSlots(devices, slot);
  }

  static absl::Status WriteSlots(DeviceSet& devices, const WitnessSlot& slot) {
    std::vector<DataFile*> files;
    for (DataFile* file : devices.files()) files.push_back(file);
    for (DataFile* file : files) TS_RETURN_IF_ERROR(devices.WriteNextSlot(*file, slot));
    for (const absl::Status& status : devices.Sync(files)) TS_RETURN_IF_ERROR(status);
    return absl::OkStatus();
  }

  absl::Status Finish() {
    TS_RETURN_IF_ERROR(ReplaceFile(*disk_, JoinPath(path_, kStoreFileName), FormatStoreFile(store_file_)));
    for (const std::string& directory : directories_) {
      absl::Status removed = disk_->Remove(JoinPath(directory, kCreatingFileName));
      if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
      TS_RETURN_IF_ERROR(disk_->SyncDirectory(directory));
    }
    return absl::OkStatus();
  }

  // Removes what a creation puts into a directory, and nothing else. Errors show again when the same names are made.
  void Sweep(const std::string& directory) {
    const auto names = disk_->List(directory);
    if (!names.ok()) return;
    // STORE first and CREATING last, so that what a crash leaves is no store and can be swept again.
    if (!absl::IsNotFound(disk_->Remove(JoinPath(directory, kStoreFileName)))) {
      disk_->SyncDirectory(directory).IgnoreError();
    }
    for (const std::string& name : *names) {
      const bool data_file = name.size() == 12 && name.substr(8) == ".tsd";
      if (data_file || name == kBallastName || name == absl::StrCat(kStoreFileName, ".tmp")) {
        disk_->Remove(JoinPath(directory, name)).IgnoreError();
      }
    }
    if (directory == path_) {  // RocksDB made these itself, not through the disk
      std::error_code ignored;
      std::filesystem::remove_all(JoinPath(path_, kIndexName), ignored);
    }
    disk_->Remove(JoinPath(directory, kCreatingFileName)).IgnoreError();
  }

  void RemoveDirectories() {
    // While they are held: whoever waits for one sees that its name is gone and begins anew.
    for (size_t i = 0; i < locks_.size(); ++i) {
      disk_->Remove(JoinPath(directories_[i], kLockFileName)).IgnoreError();
    }
    locks_.clear();
    for (auto directory = missing_.rbegin(); directory != missing_.rend(); ++directory) {
      disk_->Remove(*directory).IgnoreError();
    }
  }

  const std::string path_;
  const CreateOptions& options_;
  std::unique_ptr<Disk> own_disk_;
  Disk* disk_ = nullptr;
  std::vector<std::string> devices_;      // directories, one each
  std::vector<std::string> directories_;  // the shelf and the devices
  std::vector<std::string> missing_;      // of those, the ones that this creation makes
  uint64_t data_bytes_ = 0;               // per device
  uint64_t file_bytes_ = 0;
  StoreFile store_file_;
  std::vector<std::unique_ptr<DataFile>> files_;
  std::vector<TuningRow> tunings_;                // of the devices, where they were measured
  std::vector<std::unique_ptr<FileLock>> locks_;  // one a directory
};

}  // namespace

absl::Status Store::Create(const std::string& path, const CreateOptions& options) {
  return StoreCreator(AbsolutePath(path), options).Run();
}

}  // namespace tensorshelf
