#include "store/device_set.h"

#include <algorithm>
#include <utility>

#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/mutex.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {

namespace {

bool HasDefaults(const IoEngineOptions& io) {
  const IoEngineOptions defaults;
  return io.worker_count == defaults.worker_count && io.queue_depth == defaults.queue_depth &&
         io.io_size == defaults.io_size;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceSet>> DeviceSet::Create(Disk* disk, const StoreOptions& options,
                                                             std::vector<std::unique_ptr<DataFile>> files,
                                                             std::span<const TuningRow> tunings) {
  std::unique_ptr<DeviceSet> set(new DeviceSet);
  if (options.use_tuning && HasDefaults(options.io)) set->tunings_.assign(tunings.begin(), tunings.end());
  uint64_t io_size_max = options.io.io_size;
  for (const TuningRow& tuning : set->tunings_) io_size_max = std::max<uint64_t>(io_size_max, tuning.io_size);
  set->pool_ = std::make_shared<MemoryPool>(MemoryPool::Options{
      .kept_bytes_max = options.result_pool_bytes, .page_locked = options.page_locked, .hooks = options.memory_hooks});
  TS_ASSIGN_OR_RETURN(set->arena_, StagingArena::Create({.size = options.staging_bytes,
                                                         .buffer_size = io_size_max,
                                                         .page_locked = options.page_locked,
                                                         .hooks = options.memory_hooks}));
  set->disk_ = disk;
  set->io_options_ = options.io;
  {
    absl::MutexLock lock(&set->change_mutex_);
    set->Publish(std::make_unique<Table>());
  }
  TS_RETURN_IF_ERROR(set->Add(std::move(files)));
  return set;
}

IoEngineOptions DeviceSet::OptionsFor(const Uuid& device) const {
  IoEngineOptions options = io_options_;
  const auto tuning = std::ranges::find(tunings_, device, &TuningRow::device_uuid);
  if (tuning == tunings_.end()) return options;
  options.io_size = tuning->io_size;
  options.queue_depth = tuning->queue_depth;
  options.worker_count = tuning->worker_count;
  options.small_size = std::min(options.small_size, options.io_size);
  return options;
}

void DeviceSet::Publish(std::unique_ptr<Table> table) {
  // Its share of the staging buffers for each device: a slow one must not keep the others from theirs. The worker_count
  // more that an engine may have are left out.
  if (table->engines.size() > 1) {
    for (IoEngine* engine : table->engines) {
      const size_t share = arena_->buffer_count() / table->engines.size();
      const size_t workers = engine->options().worker_count;
      engine->LimitBuffers(share > workers ? share - workers : 1);
    }
  }
  table_.store(table.get(), std::memory_order_release);
  tables_.push_back(std::move(table));
}

absl::Status DeviceSet::Add(std::vector<std::unique_ptr<DataFile>> files) {
  absl::MutexLock lock(&change_mutex_);
  auto table = std::make_unique<Table>(*this->table());
  std::vector<std::unique_ptr<IoEngine>> engines;
  for (const auto& file : files) {
    const auto beside = std::find_if(table->files.begin(), table->files.end(), [&](const DataFile* other) {
      return other->row.device_uuid == file->row.device_uuid;
    });
    if (beside == table->files.end()) {
      IoEngineOptions io_options = OptionsFor(file->row.device_uuid);
      io_options.trace_lane = static_cast<uint32_t>(table->engines.size());
      TS_ASSIGN_OR_RETURN(auto engine, IoEngine::Create(disk_, arena_.get(), io_options));
      table->device_of[file->row.file_id] = table->engines.size();
      table->engines.push_back(engine.get());
      table->uuids.push_back(file->row.device_uuid);
      engines.push_back(std::move(engine));
    } else {
      table->device_of[file->row.file_id] = table->device_of[(*beside)->row.file_id];
    }
    table->by_id[file->row.file_id] = file.get();
    table->files.push_back(file.get());
  }
  for (auto& file : files) files_.push_back(std::move(file));
  for (auto& engine : engines) engines_.push_back(std::move(engine));
  Publish(std::move(table));
  return absl::OkStatus();
}

void DeviceSet::Remove(uint32_t file_id) {
  absl::MutexLock lock(&change_mutex_);
  auto table = std::make_unique<Table>(*this->table());
  std::erase_if(table->files, [&](const DataFile* file) { return file->row.file_id == file_id; });
  table->by_id.erase(file_id);
  Publish(std::move(table));
}

DataFile* DeviceSet::Find(uint32_t file_id) const {
  const Table& now = *table();
  const auto found = now.by_id.find(file_id);
  return found == now.by_id.end() ? nullptr : found->second;
}

BatchResult DeviceSet::Transfer(IoKind kind, Priority priority, std::vector<Segment> segments,
                                std::span<DataFile* const> owners) {
  if (segments.empty()) return {absl::OkStatus(), 0};
  const Table& now = *table();
  const std::vector<IoEngine*>& engines = now.engines;
  if (engines.size() == 1) {
    return engines[0]->Run({.kind = kind, .priority = priority, .segments = std::move(segments), .done = nullptr});
  }
  std::vector<std::vector<Segment>> of_device(engines.size());
  std::vector<std::vector<size_t>> position(engines.size());  // in `segments`
  for (size_t i = 0; i < segments.size(); ++i) {
    const size_t device = now.device_of.at(owners[i]->row.file_id);
    of_device[device].push_back(segments[i]);
    position[device].push_back(i);
  }
  std::vector<BatchResult> results(engines.size());
  absl::BlockingCounter running(static_cast<int>(engines.size()));
  for (size_t device = 0; device < engines.size(); ++device) {
    engines[device]->Submit({.kind = kind,
                             .priority = priority,
                             .segments = std::move(of_device[device]),
                             .done = [&results, &running, device](const BatchResult& result) {
                               results[device] = result;
                               running.DecrementCount();
                             }});
  }
  running.Wait();
  for (size_t device = 0; device < engines.size(); ++device) {
    if (!results[device].status.ok()) return {results[device].status, position[device][results[device].failed_segment]};
  }
  return {absl::OkStatus(), 0};
}

std::vector<absl::Status> DeviceSet::Sync(std::span<DataFile* const> files) {
  std::vector<File*> raw;
  raw.reserve(files.size());
  for (DataFile* file : files) raw.push_back(file->file.get());
  return table()->engines[0]->Sync(raw);
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
  for (const IoEngine* engine : table()->engines) {
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
  const Table& now = *table();
  for (size_t i = 0; i < now.engines.size(); ++i) {
    const bool has_files = std::any_of(now.files.begin(), now.files.end(),
                                       [&](const DataFile* file) { return file->row.device_uuid == now.uuids[i]; });
    if (has_files) devices.push_back({now.uuids[i], now.engines[i]->stats()});
  }
  return devices;
}

}  // namespace tensorshelf
