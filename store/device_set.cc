#include "store/device_set.h"

#include <algorithm>
#include <utility>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {

absl::StatusOr<std::unique_ptr<DeviceSet>> DeviceSet::Create(Disk* disk, const StoreOptions& options,
                                                             std::vector<std::unique_ptr<DataFile>> files) {
  std::unique_ptr<DeviceSet> set(new DeviceSet);
  set->pool_ = std::make_shared<MemoryPool>(MemoryPool::Options{
      .kept_bytes_max = options.result_pool_bytes, .page_locked = options.page_locked, .hooks = options.memory_hooks});
  TS_ASSIGN_OR_RETURN(set->arena_, StagingArena::Create({.size = options.staging_bytes,
                                                         .buffer_size = options.io.io_size,
                                                         .page_locked = options.page_locked,
                                                         .hooks = options.memory_hooks}));
  std::map<Uuid, size_t> engine_of_device;
  for (auto& file : files) {
    const auto [device, is_new] = engine_of_device.try_emplace(file->row.device_uuid, set->engines_.size());
    if (is_new) {
      TS_ASSIGN_OR_RETURN(auto engine, IoEngine::Create(disk, set->arena_.get(), options.io));
      set->engines_.push_back(std::move(engine));
      set->uuids_.push_back(file->row.device_uuid);
    }
    set->device_of_[file->row.file_id] = device->second;
    set->by_id_[file->row.file_id] = file.get();
  }
  set->files_ = std::move(files);
  return set;
}

DataFile* DeviceSet::Find(uint32_t file_id) const {
  const auto found = by_id_.find(file_id);
  return found == by_id_.end() ? nullptr : found->second;
}

BatchResult DeviceSet::Transfer(IoKind kind, Priority priority, std::vector<Segment> segments,
                                std::span<DataFile* const> owners) {
  if (segments.empty()) return {absl::OkStatus(), 0};
  if (engines_.size() == 1) {
    return engines_[0]->Run({.kind = kind, .priority = priority, .segments = std::move(segments), .done = nullptr});
  }
  std::vector<std::vector<Segment>> of_device(engines_.size());
  std::vector<std::vector<size_t>> position(engines_.size());  // in `segments`
  for (size_t i = 0; i < segments.size(); ++i) {
    const size_t device = DeviceOf(*owners[i]);
    of_device[device].push_back(segments[i]);
    position[device].push_back(i);
  }
  std::vector<BatchResult> results(engines_.size());
  absl::BlockingCounter running(static_cast<int>(engines_.size()));
  for (size_t device = 0; device < engines_.size(); ++device) {
    engines_[device]->Submit({.kind = kind,
                              .priority = priority,
                              .segments = std::move(of_device[device]),
                              .done = [&results, &running, device](const BatchResult& result) {
                                results[device] = result;
                                running.DecrementCount();
                              }});
  }
  running.Wait();
  for (size_t device = 0; device < engines_.size(); ++device) {
    if (!results[device].status.ok()) return {results[device].status, position[device][results[device].failed_segment]};
  }
  return {absl::OkStatus(), 0};
}

std::vector<absl::Status> DeviceSet::Sync(std::span<DataFile* const> files) {
  std::vector<File*> raw;
  raw.reserve(files.size());
  for (DataFile* file : files) raw.push_back(file->file.get());
  return engines_[0]->Sync(raw);
}

absl::Status DeviceSet::WriteNextSlot(DataFile& file, const WitnessSlot& content) {
  WitnessSlot slot = content;
  slot.file_id = file.row.file_id;
  slot.slot_seq = file.slot_seq + 1;
  slot.filled_until_bytes = file.filled_until.load(std::memory_order_relaxed);
  TS_RETURN_IF_ERROR(WriteSlot(*file.file, slot));
  file.slot_seq = slot.slot_seq;
  return absl::OkStatus();
}

IoEngineStats DeviceSet::io_stats() const {
  IoEngineStats sum;
  for (const auto& engine : engines_) {
    const IoEngineStats one = engine->stats();
    sum.read_ops += one.read_ops;
    sum.write_ops += one.write_ops;
    sum.read_bytes += one.read_bytes;
    sum.write_bytes += one.write_bytes;
    sum.staged_bytes += one.staged_bytes;
    sum.resubmitted_ops += one.resubmitted_ops;
    sum.failed_ops += one.failed_ops;
    sum.in_flight_ops += one.in_flight_ops;
    sum.waiting_blocks += one.waiting_blocks;
    sum.read_latency.Add(one.read_latency);
    sum.write_latency.Add(one.write_latency);
  }
  return sum;
}

std::vector<DeviceSet::DeviceIo> DeviceSet::io_by_device() const {
  std::vector<DeviceIo> devices;
  for (size_t i = 0; i < engines_.size(); ++i) devices.push_back({uuids_[i], engines_[i]->stats()});
  return devices;
}

}  // namespace tensorshelf
