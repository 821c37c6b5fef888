#include "python/bindings/reports.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "python/bindings/errors.h"
#include "python/bindings/waiting.h"
#include "python/libtorch/pooled_tensor.h"
#include "store/dtype.h"
#include "store/live_page.h"
#include "store/prometheus_text.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

template <size_t kSize>
std::string Hex(const std::array<uint8_t, kSize>& bytes) {
  return absl::BytesToHexString(std::string(bytes.begin(), bytes.end()));
}

const char* NameOf(Placement placement) {
  switch (placement) {
    case Placement::kNone:
      return "none";
    case Placement::kExtents:
      return "extents";
    case Placement::kInline:
      return "inline";
    case Placement::kExternal:
      return "external";
  }
  return "unknown";
}

template <typename Space>
py::dict ToDict(const Space& space) {
  py::dict dict;
  dict["capacity"] = space.capacity;
  dict["reserved"] = space.reserved;
  dict["live"] = space.live;
  dict["parked"] = space.parked;
  dict["free"] = space.free;
  dict["scratch"] = space.scratch;
  dict["limbo"] = space.limbo;
  dict["bad"] = space.bad;
  return dict;
}

py::dict ToDict(const TuningRow& tuning) {
  py::dict dict;
  dict["io_size"] = tuning.io_size;
  dict["queue_depth"] = tuning.queue_depth;
  dict["workers"] = tuning.worker_count;
  dict["read_bytes_per_s"] = tuning.read_bytes_per_s;
  dict["write_bytes_per_s"] = tuning.write_bytes_per_s;
  return dict;
}

py::dict ToDict(const FileInfo& file) {
  py::dict dict;
  dict["file_id"] = file.file_id;
  dict["path"] = file.path.empty() ? py::object(py::none()) : py::str(file.path);
  dict["device_uuid"] = Hex(file.device_uuid);
  dict["size"] = file.size;
  dict["data_begin"] = file.data_begin;
  dict["data_end"] = file.data_end;
  dict["filled_until"] = file.filled_until;
  dict["direct"] = file.alignment.direct;
  dict["memory_alignment"] = file.alignment.memory;
  dict["offset_alignment"] = file.alignment.offset;
  dict["space"] = ToDict(file.space);
  dict["fragmentation"] = file.fragmentation;
  dict["largest_free"] = file.largest_free;
  dict["witness_commit"] = file.witness_commit;
  dict["read_only"] = file.read_only;
  dict["tuning"] = py::none();
  if (file.tuning.has_value()) dict["tuning"] = ToDict(*file.tuning);
  return dict;
}

py::list ExtentsOf(const ObjectRecord& record) {
  py::list extents;
  for (const std::vector<Extent>& column : record.columns) {
    for (const Extent& extent : column) extents.append(py::make_tuple(extent.file_id, extent.offset(), extent.bytes()));
  }
  return extents;
}

// None where it is not counted.
py::object CountOrNone(uint64_t count) { return count == UINT64_MAX ? py::object(py::none()) : py::int_(count); }

py::dict ToDict(const IoEngineStats& io) {
  py::dict dict;
  dict["read_ops"] = io.read_ops;
  dict["write_ops"] = io.write_ops;
  dict["read_bytes"] = io.read_bytes;
  dict["write_bytes"] = io.write_bytes;
  dict["staged_bytes"] = io.staged_bytes;
  dict["resubmitted_ops"] = io.resubmitted_ops;
  dict["failed_ops"] = io.failed_ops;
  return dict;
}

py::dict ToDict(const MemoryPool::Stats& pool) {
  py::dict dict;
  dict["held_bytes"] = pool.held_bytes;
  dict["kept_bytes"] = pool.kept_bytes;
  dict["recycled_count"] = pool.recycled_count;
  dict["mapped_count"] = pool.mapped_count;
  return dict;
}

py::dict ToDict(const MemoryTierStats& memory) {
  py::dict dict;
  dict["capacity"] = memory.capacity;
  dict["held_bytes"] = memory.held_bytes;
  dict["objects"] = memory.objects;
  dict["kept_objects"] = memory.kept_objects;
  dict["hits"] = memory.hits;
  dict["misses"] = memory.misses;
  dict["hit_bytes"] = memory.hit_bytes;
  dict["joined_reads"] = memory.joined_reads;
  dict["admissions"] = memory.admissions;
  dict["rejected"] = memory.rejected;
  dict["evictions"] = memory.evictions;
  dict["leases"] = memory.leases;
  dict["leased_bytes"] = memory.leased_bytes;
  dict["oldest_lease_seconds"] = memory.oldest_lease_s;
  dict["prefetch_waiting"] = memory.prefetch_waiting;
  dict["page_locked"] = memory.page_locked;
  dict["huge_pages"] = memory.huge_pages;
  return dict;
}

py::dict ToDict(const Index::Stats& index) {
  py::dict dict;
  dict["cache_hits"] = index.cache_hits;
  dict["cache_misses"] = index.cache_misses;
  dict["cache_bytes"] = index.cache_bytes;
  dict["memory_bytes"] = index.memory_bytes;
  dict["file_bytes"] = index.file_bytes;
  dict["commits"] = index.commits;
  return dict;
}

void AddLatency(const LatencyCounts& latency, py::dict& dict) {
  const bool any = latency.count() > 0;
  const auto microseconds = [&](double ns) { return any ? py::object(py::float_(ns / 1e3)) : py::object(py::none()); };
  dict["count"] = latency.count();
  dict["p50_us"] = microseconds(latency.QuantileNs(0.5));
  dict["p99_us"] = microseconds(latency.QuantileNs(0.99));
  dict["max_us"] = microseconds(static_cast<double>(latency.max_ns));
  dict["mean_us"] = microseconds(latency.mean_ns());
}

py::dict OperationsOf(const LivePage& page) {
  py::dict operations;
  for (size_t i = 0; i < kOperationCount; ++i) {
    const LiveOperation& operation = page.operations[i];
    py::dict dict;
    AddLatency(operation.latency, dict);
    dict["count"] = operation.calls;
    dict["items"] = operation.items;
    dict["bytes"] = operation.bytes;
    dict["errors"] = operation.errors;
    operations[NameOf(static_cast<Operation>(i))] = dict;
  }
  return operations;
}

py::list DevicesOf(const LivePage& page) {
  py::list devices;
  for (const LiveDevice& device : page.used_devices()) {
    py::dict dict, reads, writes;
    AddLatency(device.read_latency, reads);
    AddLatency(device.write_latency, writes);
    dict["device_uuid"] = Hex(device.uuid);
    dict["tier"] = TextOf(device.tier);
    dict["capacity"] = device.capacity;
    dict["live"] = device.live;
    dict["free"] = device.free;
    dict["read_ops"] = device.read_ops;
    dict["write_ops"] = device.write_ops;
    dict["read_bytes"] = device.read_bytes;
    dict["write_bytes"] = device.write_bytes;
    dict["staged_bytes"] = device.staged_bytes;
    dict["resubmitted_ops"] = device.resubmitted_ops;
    dict["failed_ops"] = device.failed_ops;
    dict["in_flight_ops"] = device.in_flight_ops;
    dict["waiting_blocks"] = device.waiting_blocks;
    dict["reads"] = reads;
    dict["writes"] = writes;
    devices.append(dict);
  }
  return devices;
}

py::dict StagingOf(const LiveGauges& gauges) {
  py::dict dict;
  dict["buffers"] = gauges.arena_buffers;
  dict["free_buffers"] = gauges.arena_free_buffers;
  dict["waiting"] = gauges.arena_waiting;
  dict["buffer_size"] = gauges.arena_buffer_size;
  return dict;
}

}  // namespace

py::dict DescribeObject(const ObjectHandle& handle) {
  handle.store->store();
  const Object& object = *handle.object;
  const ObjectRecord& record = object.record();
  const bool is_tensor = record.kind == ObjectKind::kTensor;
  const Dtype* dtype = FindDtype(record.dtype);
  py::dict dict;
  dict["name"] = object.name();
  dict["kind"] = is_tensor ? "tensor" : "bytes";
  dict["dtype"] = !is_tensor ? py::object(py::none())
                             : py::str(dtype != nullptr ? dtype->name : "dtype " + std::to_string(record.dtype));
  dict["torch_has_dtype"] = is_tensor && TorchHasDtype(record.dtype);
  dict["shape"] = is_tensor ? py::object(py::tuple(py::cast(record.shape))) : py::none();
  dict["nbytes"] = record.logical_bytes;
  dict["stored_bytes"] = record.stored_bytes;
  dict["generation"] = record.generation;
  dict["created_ns"] = record.created_ns;
  dict["metadata"] = ValueOrThrow(object.metadata());
  dict["fingerprint"] = Hex(record.fingerprint);
  dict["block_size"] = record.block_bytes();
  dict["placement"] = NameOf(record.placement);
  dict["extents"] = py::tuple(ExtentsOf(record));
  dict["ephemeral"] = object.ephemeral();
  return dict;
}

py::dict StatsOf(StoreHandle& handle) {
  Store& store = handle.store();
  StoreStats stats;
  LivePage page;
  absl::Status shown;
  ThrowIfError(WaitHere([&] {
    stats = store.stats();
    page = store.live_page();
    shown = store.counters_status();
    return absl::OkStatus();
  }));
  handle.notices().Deliver();
  py::dict dict;
  dict["names"] = CountOrNone(stats.names);
  dict["objects"] = CountOrNone(stats.objects);
  dict["space"] = ToDict(stats.space);
  dict["leased_objects"] = stats.leased_objects;
  dict["commits"] = stats.commits;
  dict["commit_groups"] = stats.commit_groups;
  dict["syncs"] = stats.syncs;
  dict["puts"] = stats.puts;
  dict["put_bytes"] = stats.put_bytes;
  dict["unchanged_puts"] = stats.unchanged_puts;
  dict["reads"] = stats.reads;
  dict["read_bytes"] = stats.read_bytes;
  dict["reread_blocks"] = stats.reread_blocks;
  dict["corrupt_blocks"] = stats.corrupt_blocks;
  dict["waiting_commits"] = stats.waiting_commits;
  dict["io"] = ToDict(stats.io);
  dict["pool"] = ToDict(stats.pool);
  dict["memory"] = ToDict(stats.memory);
  dict["index"] = ToDict(stats.index);
  dict["operations"] = OperationsOf(page);
  dict["devices"] = DevicesOf(page);
  dict["staging"] = StagingOf(page.gauges);
  dict["open_views"] = page.gauges.open_views;
  dict["counters_hidden"] = shown.ok() ? py::object(py::none()) : py::str(std::string(shown.message()));
  return dict;
}

std::string MetricsOf(StoreHandle& handle) {
  Store& store = handle.store();
  std::string text;
  ThrowIfError(WaitHere([&] {
    text = PrometheusText(store.live_page());
    return absl::OkStatus();
  }));
  return text;
}

py::dict InfoOf(StoreHandle& handle) {
  Store& store = handle.store();
  StoreInfo info;
  ThrowIfError(WaitHere([&] {
    info = store.info();
    return absl::OkStatus();
  }));
  handle.notices().Deliver();
  py::list files;
  for (const FileInfo& file : info.files) files.append(ToDict(file));
  py::dict dict;
  dict["path"] = info.path;
  dict["store_uuid"] = Hex(info.store_uuid);
  dict["format"] = info.format;
  dict["compat"] = info.compat;
  dict["ro_compat"] = info.ro_compat;
  dict["incompat"] = info.incompat;
  dict["epoch"] = info.epoch;
  dict["commit"] = info.commit;
  dict["mode"] = info.mode;
  dict["writer"] = info.writer.empty() ? py::object(py::none()) : py::str(info.writer);
  dict["files"] = files;
  dict["orphan_files"] = info.orphan_files;
  dict["page_locked"] = info.page_locked;
  return dict;
}

}  // namespace tensorshelf
