// What a store says of itself: info, stats, listings with records, the map of its space.

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "store/space_map.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

SpaceBytes InBytes(const SpaceCounters& counters) {
  const auto bytes = [&](SpaceState state) { return counters[state] * kUnitBytes; };
  return {.capacity = counters.total() * kUnitBytes,
          .reserved = bytes(SpaceState::kReserved),
          .live = bytes(SpaceState::kLive),
          .parked = bytes(SpaceState::kParked),
          .free = bytes(SpaceState::kFree),
          .scratch = bytes(SpaceState::kScratch),
          .limbo = bytes(SpaceState::kLimbo),
          .bad = bytes(SpaceState::kBad)};
}

}  // namespace

StoreInfo StoreCore::info() {
  absl::ReaderMutexLock lock(&lifecycle_);
  StoreInfo info;
  info.path = path_;
  info.store_uuid = store_file_.store_uuid;
  info.format = kStoreFileFormat;
  info.compat = super_.compat;
  info.ro_compat = super_.ro_compat;
  info.incompat = super_.incompat;
  info.epoch = super_.epoch;
  info.commit = published_.load();
  info.mode = read_only_reason_.empty()                   ? "read-write"
              : index_mode_ == Index::Mode::kBesideWriter ? "beside-writer"
                                                          : "read-only";
  if (closed_ || forked()) return info;
  if (const auto holder = disk_->LockHolder(JoinPath(path_, kLockFileName)); holder.ok()) info.writer = *holder;
  info.orphan_files = orphan_files_;
  info.page_locked = devices_->page_locked();
  const auto devices = index_->ReadDevices();
  const auto tier_of = [&](const Uuid& uuid) -> std::string {
    if (!devices.ok()) return "";
    const auto device = std::ranges::find(*devices, uuid, &DeviceRow::uuid);
    return device == devices->end() ? "" : device->tier_name;
  };
  const auto tunings = index_->ReadTunings();
  for (const auto& file : devices_->files()) {
    FileInfo one;
    if (tunings.ok()) {
      const auto tuning = std::ranges::find(*tunings, file->row.device_uuid, &TuningRow::device_uuid);
      if (tuning != tunings->end()) one.tuning = *tuning;
    }
    one.file_id = file->row.file_id;
    one.path = file->path;
    one.device_uuid = file->row.device_uuid;
    one.tier = tier_of(file->row.device_uuid);
    one.size = file->row.size;
    one.data_begin = file->row.data_begin;
    one.data_end = file->row.data_end;
    one.filled_until = file->filled_until.load();
    if (file->file != nullptr) one.alignment = file->file->alignment();
    one.witness_commit = file->witness_commit;
    one.read_only = file->read_only.load();
    if (const auto space = allocator_->file(file->row.file_id); space.ok()) {
      one.space = InBytes(space->counters);
      one.largest_free = space->largest_free_units * kUnitBytes;
      one.fragmentation = allocator_->FragmentationScore();
    }
    info.files.push_back(std::move(one));
  }
  return info;
}

absl::StatusOr<std::unique_ptr<ObjectCursor>> StoreCore::NewCursor(const std::string& prefix,
                                                                   const std::string& start) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  return index_->NewCursor(prefix, start);
}

absl::StatusOr<SpaceMap> StoreCore::MapSpace() {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  std::vector<SpaceFile> files;
  for (const auto& file : devices_->files()) {
    files.push_back({file->row.file_id, file->row.data_begin / kUnitBytes, file->row.data_end / kUnitBytes});
  }
  std::vector<OwnedExtent> owned;
  std::vector<SpaceProblem> undecodable;
  TS_RETURN_IF_ERROR(index_->ScanObjects(0, UINT64_MAX, [&](uint64_t generation, std::span<const std::byte> row) {
    const auto space = DecodeRecordSpace(row);
    if (!space.ok()) {
      undecodable.push_back(
          {{generation, {}}, 0, absl::StrCat("generation ", generation, ": ", std::string(space.status().message()))});
      return true;
    }
    for (const Extent& extent : space->extents) owned.push_back({generation, extent});
    return true;
  }));
  TS_ASSIGN_OR_RETURN(std::vector<Extent> bad, index_->ReadBadUnits());
  SpaceMap map = BuildSpaceMap(files, std::move(owned), std::move(bad));
  map.problems.insert(map.problems.begin(), undecodable.begin(), undecodable.end());
  return map;
}

StoreStats StoreCore::stats() {
  absl::ReaderMutexLock lock(&lifecycle_);
  StoreStats stats;
  if (closed_ || forked()) return stats;
  stats.names = stats.objects = UINT64_MAX;
  if (queue_ != nullptr) {
    parked_->Reclaim();
    ephemeral_->Reclaim();
    const CommitQueue::Stats queue = queue_->stats();
    stats.names = queue.names + ephemeral_->size();
    stats.objects = queue.objects + ephemeral_->size();
    stats.commits = queue.commits;
    stats.commit_groups = queue.groups;
    stats.syncs = queue.syncs;
    stats.waiting_commits = queue.waiting;
    stats.space = InBytes(allocator_->totals());
  }
  stats.leased_objects = leases_.generations();
  stats.puts = puts_.load();
  stats.put_bytes = put_bytes_.load();
  stats.unchanged_puts = unchanged_puts_.load();
  for (const Operation operation : {Operation::kGet, Operation::kSlice}) {
    const OperationCounts reads = meters_.Read(operation);
    stats.reads += reads.items;
    stats.read_bytes += reads.bytes;
  }
  stats.reread_blocks = reader_->reread_blocks();
  stats.corrupt_blocks = reader_->corrupt_blocks();
  stats.io = devices_->io_stats();
  stats.pool = devices_->pool()->stats();
  if (memory_tier_ != nullptr) {
    stats.memory = memory_tier_->stats();
    stats.memory.prefetch_waiting = prefetcher_->waiting();
  }
  stats.index = index_->stats();
  return stats;
}

}  // namespace tensorshelf
