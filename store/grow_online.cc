// Store::Grow, while the store is in use. The steps are those of grow_store.cc; what differs is who makes the commit:
//   1  data files with the label "joining", a slot of this epoch, their names durable    orphans
//   2  STORE with the new devices' hints                                                  the same
//   3  the files are open, so witnesses go into them too; no space of them is known yet   the same
//   4  one commit of the commit thread with the rows of all new files                     the capacity is there
//   5  their space is free to be reserved; their labels say "active"                      the same

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "store/file_growth.h"
#include "store/process_identity.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

std::unique_ptr<DataFile> DataFileOf(NewFile& made) {
  auto file = std::make_unique<DataFile>();
  const Label& label = made.label;
  file->row = {label.file_id, label.device_uuid, label.size, label.data_begin, label.data_end};
  file->path = made.path;
  file->directory = made.directory;
  file->file = std::move(made.file);
  file->slot_seq = 1;
  file->filled_until = label.data_begin;
  return file;
}

absl::StatusOr<std::vector<ExistingFile>> ExistingFiles(const DeviceSet& devices) {
  std::vector<ExistingFile> existing;
  for (const DataFile* file : devices.files()) {
    TS_ASSIGN_OR_RETURN(LabelReading reading, ReadLabel(*file->file));
    existing.push_back({file->path, file->directory, std::move(reading.label)});
  }
  return existing;
}

}  // namespace

absl::StatusOr<GrowReport> StoreCore::Grow(const GrowOptions& options) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  absl::MutexLock files_lock(&files_mutex_);
  if (!orphan_files_.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat(orphan_files_.front(), " is a data file that the index does not know; see fsck"));
  }
  GrowOptions absolute = options;
  for (std::string& device : absolute.devices) device = AbsolutePath(device);
  TS_ASSIGN_OR_RETURN(std::vector<ExistingFile> existing, ExistingFiles(*devices_));
  FileGrowth growth(*disk_, path_, absolute, std::move(existing), store_file_);
  TS_ASSIGN_OR_RETURN(const std::vector<std::string> new_devices, growth.NewDevices());
  TS_RETURN_IF_ERROR(growth.Make(super_.epoch, published_.load()));
  std::vector<std::unique_ptr<FileLock>> locks;
  for (const std::string& device : new_devices) {
    auto taken = disk_->Lock(JoinPath(device, kLockFileName), HolderText());
    if (!taken.ok()) {
      growth.RemoveFiles();
      return taken.status();
    }
    locks.push_back(*std::move(taken));
  }
  std::vector<std::unique_ptr<DataFile>> files;
  for (NewFile& made : growth.files()) files.push_back(DataFileOf(made));
  const absl::Status added = devices_->Add(std::move(files));
  if (!added.ok()) {
    growth.RemoveFiles();
    return added;
  }
  GrowReport report = growth.Report();
  CommitRequest request;
  CommitOp& op = request.ops.emplace_back();
  op.kind = CommitOp::Kind::kFiles;
  op.change = [&](CommitBatch& batch) {
    growth.PutRows(batch);
    return absl::OkStatus();
  };
  op.published = [&] {
    for (const NewFile& made : growth.files()) {
      const Label& label = made.label;
      const absl::Status known =
          allocator_->AddFile({label.file_id, label.data_begin / kUnitBytes, label.data_end / kUnitBytes});
      TS_CHECK(known.ok());
    }
  };
  queue_->Run(request);
  if (!request.result.ok()) {
    if (!latch_.closed()) {  // else they may belong to the store
      for (const NewFile& made : growth.files()) devices_->Remove(made.label.file_id);
      growth.RemoveFiles();
    }
    return request.result.status();
  }
  store_file_.devices = growth.store_file().devices;
  for (auto& taken : locks) locks_.push_back(std::move(taken));
  if (fill_ != nullptr) fill_->LookAgain();
  for (const NewFile& made : growth.files()) {
    TS_RETURN_IF_ERROR(WriteLabels(*devices_->Find(made.label.file_id)->file, ActiveLabel(made.label)));
  }
  report.commit = request.result->commit;
  return report;
}

// Beside a writer that grew the store: files that its index names and that were not there at the open.
absl::Status StoreCore::AdoptNewFiles() {
  absl::MutexLock files_lock(&files_mutex_);
  TS_ASSIGN_OR_RETURN(const std::vector<FileRow> rows, index_->ReadFiles());
  const auto is_new = [&](const FileRow& row) { return devices_->Find(row.file_id) == nullptr; };
  if (std::none_of(rows.begin(), rows.end(), is_new)) return absl::OkStatus();
  TS_ASSIGN_OR_RETURN(ShelfFiles found,
                      FindShelfFiles(*disk_, path_, {.extra_directories = options_.devices, .skip_damaged = true}));
  std::vector<std::unique_ptr<DataFile>> files;
  for (FoundFile& file : found.files) {
    const FileRow& row = file.file->row;
    if (is_new(row) && std::find(rows.begin(), rows.end(), row) != rows.end()) files.push_back(std::move(file.file));
  }
  return devices_->Add(std::move(files));
}

}  // namespace tensorshelf
