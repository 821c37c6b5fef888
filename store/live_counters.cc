// What an open store shows of itself: the page of its counters, filled in from all of its parts.

#include <algorithm>

#include "engine/foundation/status_macros.h"
#include "store/live_page.h"
#include "store/process_identity.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kNotCounted = UINT64_MAX;

void SetSpace(LiveGauges& gauges, const SpaceCounters& space) {
  const auto bytes = [&](SpaceState state) { return space[state] * kUnitBytes; };
  gauges.capacity = space.total() * kUnitBytes;
  gauges.reserved = bytes(SpaceState::kReserved);
  gauges.live = bytes(SpaceState::kLive);
  gauges.parked = bytes(SpaceState::kParked);
  gauges.free = bytes(SpaceState::kFree);
  gauges.scratch = bytes(SpaceState::kScratch);
  gauges.limbo = bytes(SpaceState::kLimbo);
  gauges.bad = bytes(SpaceState::kBad);
}

void SetIo(LiveDevice& device, const IoEngineStats& io) {
  device.read_ops = io.read_ops;
  device.write_ops = io.write_ops;
  device.read_bytes = io.read_bytes;
  device.write_bytes = io.write_bytes;
  device.staged_bytes = io.staged_bytes;
  device.resubmitted_ops = io.resubmitted_ops;
  device.failed_ops = io.failed_ops;
  device.in_flight_ops = io.in_flight_ops;
  device.waiting_blocks = io.waiting_blocks;
  device.read_latency = io.read_latency;
  device.write_latency = io.write_latency;
}

void SetMemory(LiveGauges& gauges, const StagingArena& arena, const MemoryPool::Stats& pool) {
  gauges.arena_buffers = arena.buffer_count();
  gauges.arena_free_buffers = arena.free_count();
  gauges.arena_waiting = arena.waiting_count();
  gauges.arena_buffer_size = arena.buffer_size();
  gauges.pool_held = pool.held_bytes;
  gauges.pool_kept = pool.kept_bytes;
  gauges.pool_recycled = pool.recycled_count;
  gauges.pool_mapped = pool.mapped_count;
}

void SetIndex(LiveGauges& gauges, const Index::Stats& index) {
  gauges.record_cache_hits = index.cache_hits;
  gauges.record_cache_misses = index.cache_misses;
  gauges.record_cache_size = index.cache_bytes;
  gauges.index_memory = index.memory_bytes;
  gauges.index_size = index.file_bytes;
}

}  // namespace

// Takes no lock of the store: the thread that shows the counters calls it until Close has ended that thread, before any
// part is torn down.
LivePage StoreCore::SampleCounters() const {
  LivePage page;
  InitialiseLivePage(page);
  LiveHeader& header = page.header;
  header.store_uuid = super_.store_uuid;
  header.opened_ns = opened_ns_;
  header.epoch = super_.epoch;
  header.pid = static_cast<uint32_t>(pid_);
  header.process_start_ticks = process_.ticks;
  SetText(header.holder, holder_text_);
  SetText(header.program, process_.program);
  LiveGauges& gauges = page.gauges;
  gauges.commit = published_.load();
  gauges.names = gauges.objects = kNotCounted;
  if (queue_ != nullptr) {
    const CommitQueue::Stats queue = queue_->stats();
    gauges.names = queue.names + ephemeral_->size();
    gauges.objects = queue.objects + ephemeral_->size();
    gauges.commits = queue.commits;
    gauges.commit_groups = queue.groups;
    gauges.waiting_commits = queue.waiting;
    SetSpace(gauges, allocator_->totals());
  }
  gauges.puts = puts_.load();
  gauges.unchanged_puts = unchanged_puts_.load();
  gauges.leased_objects = leases_.generations();
  gauges.open_views = guards_.active_views();
  gauges.reread_blocks = reader_->reread_blocks();
  gauges.corrupt_blocks = reader_->corrupt_blocks();
  SetMemory(gauges, devices_->arena(), devices_->pool()->stats());
  SetIndex(gauges, index_->stats());
  for (size_t i = 0; i < kOperationCount; ++i) {
    const OperationCounts counts = meters_.Read(static_cast<Operation>(i));
    page.operations[i] = {.items = counts.items,
                          .bytes = counts.bytes,
                          .errors = counts.errors,
                          .calls = counts.calls,
                          .reserved = {},
                          .latency = counts.latency};
  }
  const std::vector<DeviceSet::DeviceIo> devices = devices_->io_by_device();
  header.device_count = static_cast<uint32_t>(std::min(devices.size(), kLiveDevicesMax));
  header.devices_left_out = static_cast<uint32_t>(devices.size() - header.device_count);
  for (size_t i = 0; i < header.device_count; ++i) {
    LiveDevice& device = page.devices[i];
    device.uuid = devices[i].uuid;
    if (const auto tier = tiers_.find(device.uuid); tier != tiers_.end()) SetText(device.tier, tier->second);
    SetIo(device, devices[i].io);
    if (queue_ == nullptr) continue;
    for (const auto& file : devices_->files()) {
      if (file->row.device_uuid != device.uuid) continue;
      const auto space = allocator_->file(file->row.file_id);
      if (!space.ok()) continue;
      device.capacity += space->counters.total() * kUnitBytes;
      device.live += space->counters[SpaceState::kLive] * kUnitBytes;
      device.free += space->counters[SpaceState::kFree] * kUnitBytes;
    }
  }
  return page;
}

void StoreCore::PrepareCounters() {
  process_ = StartOfThisProcess();
  // A name for people: where it cannot be read, it is not shown.
  const auto devices = index_->ReadDevices();
  if (!devices.ok()) return;
  for (const DeviceRow& device : *devices) tiers_[device.uuid] = device.tier_name;
}

void StoreCore::ShowCounters() {
  // A disk that a caller brought counts its operations, and may hold them up: nothing is written there unasked.
  if (own_disk_ == nullptr) return;
  live_file_ = std::make_unique<LiveFile>(LiveFile::Options{
      .disk = disk_, .path = JoinPath(path_, kCountersName), .sample = [this] { return SampleCounters(); }});
}

LivePage StoreCore::live_page() {
  absl::ReaderMutexLock lock(&lifecycle_);
  if (!closed_ && !forked()) {
    if (queue_ != nullptr) {
      parked_->Reclaim();
      ephemeral_->Reclaim();
    }
    return SampleCounters();
  }
  LivePage page;
  InitialiseLivePage(page);
  return page;
}

absl::Status StoreCore::counters_status() {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  if (live_file_ != nullptr) return live_file_->status();
  return absl::FailedPreconditionError(queue_ == nullptr ? read_only_reason_ : "the disk is not the machine's own");
}

}  // namespace tensorshelf
