#include "python/bindings/reports.h"

#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "python/bindings/errors.h"
#include "python/bindings/waiting.h"
#include "python/libtorch/pooled_tensor.h"
#include "store/dtype.h"

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
  ThrowIfError(WaitHere([&] {
    stats = store.stats();
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
  return dict;
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
