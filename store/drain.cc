#include "store/drain.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/foundation/status_macros.h"
#include "store/label.h"
#include "store/layout.h"
#include "store/move_run.h"
#include "store/store_core.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

constexpr size_t kWaveObjects = 131072;
constexpr int kRoundsMax = 100;  // of looking again for what was put there before it took nothing new

absl::Status WriteState(DataFile& file, LabelState state) {
  TS_ASSIGN_OR_RETURN(LabelReading reading, ReadLabel(*file.file));
  reading.label.state = state;
  ++reading.label.label_seq;
  return WriteLabels(*file.file, reading.label);
}

// Moves everything with a name off some files. Confined to one thread.
class Evacuation {
 public:
  Evacuation(ExtentAllocator& allocator, MoveRun moves, std::vector<uint32_t> file_ids, const DrainOptions& options,
             DrainReport& report)
      : allocator_(allocator),
        moves_(std::move(moves)),
        file_ids_(std::move(file_ids)),
        options_(options),
        report_(report) {}

  absl::Status Run() {
    for (int round = 0; round < kRoundsMax && !report_.stopped; ++round) {
      std::map<uint64_t, std::string> wave;  // generation -> a name of it
      TS_RETURN_IF_ERROR(Collect(wave));
      if (moves_.stop()) report_.stopped = true;
      if (report_.stopped || wave.empty()) break;
      TS_RETURN_IF_ERROR(RunWave(wave));
    }
    if (stays_.empty() || report_.stopped) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat(stays_.size(), " objects cannot be moved, the first: ", std::string(first_why_.message())));
  }

 private:
  bool LiesThere(const ObjectRecord& record) const {
    return std::ranges::any_of(ExtentsOf(record), [&](const Extent& extent) {
      return std::ranges::find(file_ids_, extent.file_id) != file_ids_.end();
    });
  }

  absl::Status Collect(std::map<uint64_t, std::string>& wave) {
    return moves_.scan([&](const ObjectCursor& cursor) {
      // A record that cannot be read keeps its space live, and the files in the shelf.
      if (!cursor.status().ok() || wave.size() >= kWaveObjects) return;
      const ObjectRecord& record = cursor.record();
      if (LiesThere(record) && !stays_.contains(record.generation)) wave.emplace(record.generation, cursor.name());
    });
  }

  absl::Status RunWave(const std::map<uint64_t, std::string>& wave) {
    std::vector<PlannedMove> batch;
    uint64_t batch_bytes = 0;
    for (const auto& [generation, name] : wave) {
      if (moves_.stop()) {
        report_.stopped = true;
        return absl::OkStatus();
      }
      const auto plan = [&, &name = name](Object object) -> absl::Status {
        if (const absl::Status fit = CheckMovable(object.record()); !fit.ok()) {
          Stays(object.record().generation, Annotate(fit, name));
          return absl::OkStatus();
        }
        PlannedMove move;
        move.name = name;
        const absl::Status placed = PlaceAnew(allocator_, object.record(), {.away_from = file_ids_}, move);
        if (absl::IsResourceExhausted(placed)) {
          return MakeError(absl::StatusCode::kResourceExhausted, ErrorKind::kFull, std::string(placed.message()));
        }
        TS_RETURN_IF_ERROR(placed);
        move.source = std::move(object);
        batch_bytes += move.moved_bytes();
        batch.push_back(std::move(move));
        return absl::OkStatus();
      };
      TS_RETURN_IF_ERROR(moves_.find(name, generation, plan).status());
      if (batch.size() < kMoveBatchObjects && batch_bytes < kMoveBatchBytes) continue;
      TS_RETURN_IF_ERROR(Carry(batch));
      batch_bytes = 0;
      if (report_.stopped) return absl::OkStatus();
    }
    return Carry(batch);
  }

  absl::Status Carry(std::vector<PlannedMove>& batch) {
    if (batch.empty()) return absl::OkStatus();
    const absl::Status status = moves_.run(batch);
    if (absl::IsCancelled(status)) {
      report_.stopped = true;
    } else {
      TS_RETURN_IF_ERROR(status);
      for (const PlannedMove& move : batch) {
        if (move.result.fate == MoveFate::kMoved) {
          ++report_.objects_moved;
          report_.bytes_moved += move.result.bytes;
        } else if (move.result.fate != MoveFate::kLost) {
          Stays(move.to.generation, move.result.why);
        }
      }
    }
    batch.clear();
    if (options_.progress) options_.progress(report_);
    return absl::OkStatus();
  }

  void Stays(uint64_t generation, const absl::Status& why) {
    if (stays_.empty()) first_why_ = why;
    stays_.insert(generation);
  }

  ExtentAllocator& allocator_;
  const MoveRun moves_;
  const std::vector<uint32_t> file_ids_;
  const DrainOptions& options_;
  DrainReport& report_;
  absl::flat_hash_set<uint64_t> stays_;
  absl::Status first_why_;
};

}  // namespace

absl::StatusOr<std::vector<DataFile*>> StoreCore::FilesOfDevice(const std::string& device) {
  const std::string directory = AbsolutePath(device);
  std::vector<DataFile*> files, others;
  uint64_t used = 0, room = 0;
  for (DataFile* file : devices_->files()) {
    const std::string uuid = UuidText(file->row.device_uuid);
    const bool named =
        file->directory == directory || uuid == device || absl::StrReplaceAll(uuid, {{"-", ""}}) == device;
    TS_ASSIGN_OR_RETURN(const FileSpace space, allocator_->file(file->row.file_id));
    if (named) {
      files.push_back(file);
      used += space.counters[SpaceState::kLive];
    } else if (!space.read_only) {
      others.push_back(file);
      room += space.counters[SpaceState::kFree];
    }
  }
  if (files.empty()) return absl::NotFoundError(absl::StrCat(device, " is no device of ", path_));
  if (others.empty()) return absl::FailedPreconditionError(absl::StrCat(device, " is the only device of ", path_));
  if (used <= room) return files;
  return MakeError(absl::StatusCode::kResourceExhausted, ErrorKind::kFull,
                   absl::StrCat(device, " holds ", used * kUnitBytes, " bytes, on the other devices ",
                                room * kUnitBytes, " are free"));
}

absl::Status StoreCore::SetDraining(const std::vector<DataFile*>& files, bool draining) {
  for (DataFile* file : files) {
    file->draining.store(draining);
    TS_RETURN_IF_ERROR(allocator_->SetDraining(file->row.file_id, draining));
    TS_RETURN_IF_ERROR(WriteState(*file, draining ? LabelState::kDraining : LabelState::kActive));
  }
  return absl::OkStatus();
}

// OK when nothing is left in the file, or what is.
absl::Status StoreCore::CheckEmpty(const DataFile& file) const {
  TS_ASSIGN_OR_RETURN(const FileSpace space, allocator_->file(file.row.file_id));
  const auto bytes = [&](SpaceState state) { return space.counters[state] * kUnitBytes; };
  if (bytes(SpaceState::kFree) + bytes(SpaceState::kBad) == space.file.units() * kUnitBytes) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      file.NameForMessages(), " is not empty yet: ", bytes(SpaceState::kLive),
      " bytes of objects that have no name or cannot be read (see fsck), ", bytes(SpaceState::kParked),
      " bytes that readers still hold, ", bytes(SpaceState::kScratch), " bytes of ephemeral objects, ",
      bytes(SpaceState::kReserved) + bytes(SpaceState::kLimbo), " bytes of puts under way; drain it again then"));
}

absl::Status StoreCore::RemoveDrained(const std::vector<DataFile*>& files, DrainReport& report) {
  Reclaim();
  CommitRequest request;
  CommitOp& op = request.ops.emplace_back();
  op.kind = CommitOp::Kind::kFiles;
  op.change = [&](CommitBatch& batch) -> absl::Status {
    for (const DataFile* file : files) {
      // Nothing is reserved there any more, so what is empty stays so.
      TS_RETURN_IF_ERROR(CheckEmpty(*file));
      batch.DeleteFile(file->row.file_id);
      batch.DeleteDevice(file->row.device_uuid);
    }
    return absl::OkStatus();
  };
  op.published = [&] {
    for (const DataFile* file : files) {
      const absl::Status removed = allocator_->RemoveFile(file->row.file_id);
      TS_CHECK(removed.ok());
      devices_->Remove(file->row.file_id);
    }
  };
  queue_->Run(request);
  if (!request.result.ok()) return request.result.status();
  report.commit = request.result->commit;
  std::erase_if(store_file_.devices, [&](const auto& device) {
    return std::ranges::any_of(files, [&](const DataFile* file) { return file->row.device_uuid == device.uuid; });
  });
  TS_RETURN_IF_ERROR(ReplaceFile(*disk_, JoinPath(path_, kStoreFileName), FormatStoreFile(store_file_)));
  for (DataFile* file : files) {
    TS_RETURN_IF_ERROR(disk_->Remove(file->path));
    TS_RETURN_IF_ERROR(disk_->SyncDirectory(file->directory));
    TS_RETURN_IF_ERROR(file->file->Truncate(0));  // it stays open, and its space is wanted back now
    report.files.push_back(file->path);
  }
  return absl::OkStatus();
}

absl::StatusOr<DrainReport> StoreCore::Drain(const std::string& device, const DrainOptions& options) {
  DrainReport report;
  std::vector<DataFile*> files;
  std::vector<uint32_t> file_ids;
  absl::Status status;
  {
    absl::ReaderMutexLock lock(&lifecycle_);
    TS_RETURN_IF_ERROR(CheckWritable());
    absl::MutexLock files_lock(&files_mutex_);
    TS_ASSIGN_OR_RETURN(files, FilesOfDevice(device));
    for (const DataFile* file : files) {
      if (file->draining.load())
        return absl::FailedPreconditionError(absl::StrCat(device, " is being drained already"));
      file_ids.push_back(file->row.file_id);
    }
    status = SetDraining(files, true);
  }
  if (status.ok()) {
    MoveRun moves = NewMoveRun(options.rate_bytes_per_s, options.stop);
    status = Evacuation(*allocator_, std::move(moves), std::move(file_ids), options, report).Run();
  }
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  absl::MutexLock files_lock(&files_mutex_);
  if (status.ok() && !report.stopped) status = RemoveDrained(files, report);
  if (report.commit == 0 && !latch_.closed()) {
    const absl::Status taken_back = SetDraining(files, false);
    if (status.ok()) status = taken_back;
  }
  TS_RETURN_IF_ERROR(status);
  return report;
}

}  // namespace tensorshelf
