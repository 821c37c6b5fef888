#include "store/stager.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "store/dtype.h"
#include "store/layout.h"
#include "store/metadata.h"
#include "store/name.h"
#include "store/trailer.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kTrailerFrom = uint64_t{64} << 10;  // bytes; TrailerPolicy::kLarge
constexpr uint64_t kStripeFrom = uint64_t{16} << 20;   // bytes; only with several devices
constexpr uint8_t kStripeLog2 = 22;                    // 4 MiB pieces
constexpr uint64_t kCounterBits = 40;
constexpr uint64_t kTogetherMax = uint64_t{1} << 18;  // units (1 GiB) in one run of small objects

std::string Quoted(const std::string& name) { return absl::StrCat("\"", EscapeForTerminal(name), "\""); }

int64_t NowNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

struct Stager::Work {
  const PutItem* item = nullptr;
  StagedObject staged;
  ObjectRecord record;
  uint64_t data_units = 0;
  uint64_t trailer_units = 0;
  std::vector<Sum128> hashes;
};

absl::Status Stager::CheckItem(const PutItem& item) const {
  TS_RETURN_IF_ERROR(ValidateName(item.name));
  if (item.block_log2 < kUnitLog2 || item.block_log2 > 20) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(item.name), ": block_log2 is ", int{item.block_log2},
                                                   ", allowed are 12 (4 KiB) to 20 (1 MiB)"));
  }
  if (item.kind == ObjectKind::kBytes) {
    if (item.dtype == 0 && item.shape.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(Quoted(item.name), ": bytes have no dtype and no shape"));
  }
  const auto wanted = BytesOfShape(item.dtype, item.shape);
  if (!wanted.ok()) return Annotate(wanted.status(), Quoted(item.name));
  if (*wanted != item.bytes.size()) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(item.name), ": its shape and dtype need ", *wanted,
                                                   " bytes, ", item.bytes.size(), " were given"));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> Stager::FindUnchanged(const PutItem& item, StagedObject& staged) const {
  absl::StatusOr<Object> found = context_.find(item.name);
  if (absl::IsNotFound(found.status())) return false;
  if (!found.ok()) return found.status();
  const ObjectRecord& old = found->record();
  const std::vector<uint64_t>& shape = item.shape;
  if (found->ephemeral() || old.kind != item.kind || old.dtype != item.dtype || old.shape != shape ||
      old.block_log2 != item.block_log2 || old.logical_bytes != item.bytes.size()) {
    return false;
  }
  TS_ASSIGN_OR_RETURN(const Metadata metadata, found->metadata());
  if (metadata != item.metadata) return false;
  // What training changed it mostly changed everywhere: one block tells, and the others are not hashed twice.
  if (old.placement == Placement::kExtents) {
    // Where the sum cannot be read, the fingerprint decides alone.
    const absl::StatusOr<uint64_t> first_sum = context_.first_sum(old);
    const uint64_t block_bytes = std::min<uint64_t>(old.block_bytes(), item.bytes.size());
    if (first_sum.ok() && Hash128(item.bytes.first(block_bytes)).low != *first_sum) return false;
  }
  if (FingerprintOf(old, HashBlocks(item.bytes, item.block_log2)) != old.fingerprint) return false;
  staged.is_unchanged = true;
  staged.unchanged = *std::move(found);
  return true;
}

absl::StatusOr<ObjectRecord> Stager::NewRecord(const PutItem& item, uint64_t inline_bytes_max) {
  ObjectRecord record;
  record.kind = item.kind;
  record.dtype = item.dtype;
  record.block_log2 = item.block_log2;
  const uint64_t number = counter_.fetch_add(1, std::memory_order_relaxed) + 1;
  TS_CHECK(number < (uint64_t{1} << kCounterBits));
  record.generation = (context_.epoch << kCounterBits) | number;
  record.logical_bytes = record.stored_bytes = item.bytes.size();
  record.created_ns = NowNanoseconds();
  record.shape = item.shape;
  const auto metadata = EncodeMetadata(item.metadata);
  if (!metadata.ok()) return Annotate(metadata.status(), Quoted(item.name));
  if (!metadata->empty()) record.tlvs.push_back({kTlvMetadata, *metadata});
  if (item.bytes.empty()) {
    record.placement = item.ephemeral ? Placement::kNone : Placement::kInline;
  } else if (item.bytes.size() <= inline_bytes_max && !item.ephemeral) {
    record.placement = Placement::kInline;
  } else {
    record.placement = Placement::kExtents;
  }
  return record;
}

uint64_t Stager::TrailerUnitsFor(const PutItem& item, const ObjectRecord& record) const {
  const TrailerPolicy policy = context_.options->trailers;
  if (item.ephemeral || policy == TrailerPolicy::kNone) return 0;
  if (policy == TrailerPolicy::kLarge && record.stored_bytes < kTrailerFrom) return 0;
  const uint64_t sums = record.sums_count();
  return TrailerUnits(EncodedRecordSize(record, sums <= kSumsInRecordMax ? sums : 0), item.name.size(), sums);
}

absl::Status Stager::ReserveTrailer(Work& work) {
  work.trailer_units = TrailerUnitsFor(*work.item, work.record);
  TS_ASSIGN_OR_RETURN(
      auto trailer, context_.allocator->Reserve(
                        {.units = work.trailer_units, .file_id = std::nullopt, .large = false, .allow_split = false}));
  work.record.trailer = trailer[0];
  work.staged.space.Add(std::move(trailer));
  return absl::OkStatus();
}

// Small objects, trailers included, go side by side: a batch of ten thousand becomes a few large writes.
absl::Status Stager::ReserveSmall(std::span<Work* const> works) {
  std::vector<uint64_t> units;  // data, then trailer, object by object
  for (const Work* work : works) {
    units.push_back(work->data_units);
    if (work->trailer_units > 0) units.push_back(work->trailer_units);
  }
  TS_ASSIGN_OR_RETURN(auto runs, context_.allocator->ReserveRun(units, std::nullopt));
  std::vector<ReservedSpace> owned;  // all of it goes back if anything below fails
  for (auto& run : runs) owned.emplace_back(context_.allocator, run);
  size_t next = 0;
  for (Work* work : works) {
    work->record.columns.push_back(owned[next].extents());
    work->staged.space = std::move(owned[next++]);
    if (work->trailer_units == 0) continue;
    // A trailer is one extent, since it must be found by its own address, and it holds the record with all its extents.
    const uint64_t wanted = TrailerUnitsFor(*work->item, work->record);
    if (owned[next].extents().size() > 1 || wanted > work->trailer_units) {
      owned[next] = ReservedSpace();
      TS_RETURN_IF_ERROR(ReserveTrailer(*work));
    } else {
      work->record.trailer = owned[next].extents()[0];
      work->staged.space.Add(owned[next].Take());
    }
    ++next;
  }
  return absl::OkStatus();
}

absl::Status Stager::ReserveLarge(Work& work) {
  ExtentAllocator& allocator = *context_.allocator;
  ObjectRecord& record = work.record;
  work.staged.space = ReservedSpace(&allocator, {});
  std::vector<uint32_t> writable;
  for (const auto& file : context_.devices->files()) {
    if (file->file != nullptr && !file->read_only.load() && !file->draining.load())
      writable.push_back(file->row.file_id);
  }
  if (writable.size() > 1 && record.stored_bytes >= kStripeFrom) {
    std::vector<ReservedSpace> columns;
    absl::Status status;
    for (size_t column = 0; column < writable.size() && status.ok(); ++column) {
      const uint64_t units = UnitsFor(ColumnBytes(record.stored_bytes, kStripeLog2, writable.size(), column));
      auto extents = allocator.Reserve({.units = units, .file_id = writable[column], .large = true});
      status = extents.status();
      if (status.ok()) columns.emplace_back(&allocator, *std::move(extents));
    }
    if (status.ok()) {
      record.stripe_log2 = kStripeLog2;
      for (ReservedSpace& column : columns) {
        record.columns.push_back(column.extents());
        work.staged.space.Add(column.Take());
      }
    }  // else: one of the files has no room; place it whole
  }
  if (record.columns.empty()) {
    // Data and trailer in one run, so that the trailer lies right behind the data.
    auto run = allocator.Reserve(
        {.units = work.data_units + work.trailer_units, .file_id = std::nullopt, .large = true, .allow_split = false});
    if (run.ok()) {
      Extent data = (*run)[0];
      data.units = static_cast<uint32_t>(work.data_units);
      record.columns.push_back({data});
      if (work.trailer_units > 0) {
        record.trailer = {data.file_id, static_cast<uint32_t>(work.trailer_units), data.end_unit()};
      }
      work.staged.space.Add(*std::move(run));
      return absl::OkStatus();
    }
    TS_ASSIGN_OR_RETURN(auto data,
                        allocator.Reserve({.units = work.data_units, .file_id = std::nullopt, .large = true}));
    record.columns.push_back(data);
    work.staged.space.Add(std::move(data));
  }
  return work.trailer_units == 0 ? absl::OkStatus() : ReserveTrailer(work);
}

absl::Status Stager::Reserve(std::vector<Work>& works) {
  const auto reserve_all = [&]() -> absl::Status {
    for (Work& work : works) {  // a second try begins anew
      work.staged.space = ReservedSpace();
      work.record.columns.clear();
      work.record.trailer = {};
      work.record.stripe_log2 = 0;
    }
    std::vector<Work*> together;
    uint64_t together_units = 0;
    for (Work& work : works) {
      if (work.record.placement != Placement::kExtents) continue;
      const uint64_t units = work.data_units + work.trailer_units;
      if (work.record.stored_bytes >= kLargeObjectBytes) {
        const absl::Status status = ReserveLarge(work);
        if (!status.ok()) return Annotate(status, Quoted(work.item->name));
        continue;
      }
      if (together_units + units > kTogetherMax) {
        TS_RETURN_IF_ERROR(ReserveSmall(together));
        together.clear();
        together_units = 0;
      }
      together.push_back(&work);
      together_units += units;
    }
    return together.empty() ? absl::OkStatus() : ReserveSmall(together);
  };
  absl::Status status = reserve_all();
  if (absl::IsResourceExhausted(status)) {
    context_.reclaim();
    status = reserve_all();
  }
  if (absl::IsResourceExhausted(status)) {
    return MakeError(absl::StatusCode::kResourceExhausted, ErrorKind::kFull, std::string(status.message()));
  }
  return status;
}

absl::Status Stager::Transfer(std::vector<Work>& works, std::vector<Segment> segments, std::vector<DataFile*> owners,
                              std::vector<size_t> work_of_segment) {
  const std::vector<Segment> kept = segments;  // to say where a failed one was
  Priority priority = Priority::kBackground;
  for (const Work& work : works) priority = std::min(priority, work.item->priority);
  const BatchResult result = context_.devices->Transfer(IoKind::kWrite, priority, std::move(segments), owners);
  if (result.status.ok()) return absl::OkStatus();
  Work& work = works[work_of_segment[result.failed_segment]];
  if (absl::IsAborted(result.status)) {
    return MakeError(absl::StatusCode::kAborted, ErrorKind::kChanged,
                     absl::StrCat(Quoted(work.item->name), ": its memory changed while it was written"));
  }
  if (absl::IsInternal(result.status)) {
    // The rest of the object's space goes back.
    const Segment& failed = kept[result.failed_segment];
    MarkBad({owners[result.failed_segment]->row.file_id, static_cast<uint32_t>(UnitsFor(failed.length)),
             failed.offset / kUnitBytes},
            work.staged.space);
  }
  return Annotate(result.status, Quoted(work.item->name));
}

absl::Status Stager::WriteData(std::vector<Work>& works) {
  std::vector<Segment> segments;
  std::vector<DataFile*> owners;
  std::vector<size_t> work_of_segment;
  std::vector<MemoryPool::Piece> straddling;  // private copies of blocks that lie in two extents
  for (size_t i = 0; i < works.size(); ++i) {
    Work& work = works[i];
    const ObjectRecord& record = work.record;
    if (record.placement != Placement::kExtents) continue;
    const uint64_t block = record.block_bytes();
    work.hashes.resize(record.sums_count());
    std::byte* bytes = const_cast<std::byte*>(work.item->bytes.data());  // the engine does not write to it
    const auto add = [&](const FileRun& run, uint64_t from, uint64_t to, std::byte* memory, Sum128* sums) {
      DataFile* file = context_.devices->Find(run.file_id);
      segments.push_back({.file = file->file.get(),
                          .offset = run.file_offset + (from - run.object_offset),
                          .memory = memory,
                          .length = to - from,
                          .sums = sums,
                          .sum_block = static_cast<uint32_t>(block)});
      owners.push_back(file);
      work_of_segment.push_back(i);
    };
    // A block that lies in two extents is copied first, so that what is hashed is what is written to both.
    std::byte* copy = nullptr;
    for (const FileRun& run : RunsOf(record, 0, record.stored_bytes)) {
      uint64_t at = run.object_offset;
      const uint64_t end = run.object_offset + run.length;
      while (at < end) {
        const uint64_t block_begin = at / block * block;
        const uint64_t block_end = std::min(block_begin + block, record.stored_bytes);
        if (at == block_begin && (block_end <= end)) {
          const uint64_t whole_end = end == record.stored_bytes ? end : end / block * block;
          add(run, at, whole_end, bytes + at, work.hashes.data() + at / block);
          at = whole_end;
          continue;
        }
        if (at == block_begin) {
          TS_ASSIGN_OR_RETURN(auto piece, context_.devices->pool()->Allocate(block));
          std::memcpy(piece.data(), bytes + block_begin, block_end - block_begin);
          work.hashes[block_begin / block] = Hash128({piece.data(), block_end - block_begin});
          copy = piece.data();
          straddling.push_back(std::move(piece));
        }
        const uint64_t to = std::min(end, block_end);
        add(run, at, to, copy + (at - block_begin), nullptr);
        at = to;
      }
    }
  }
  if (TS_MUTATE(overwrite_in_place)) {
    // The bytes also go over those of the object that has the name now.
    for (size_t i = 0; i < works.size(); ++i) {
      const auto old = context_.find(works[i].item->name);
      if (!old.ok() || old->record().columns.empty() || old->record().columns[0].empty()) continue;
      const Extent& extent = old->record().columns[0][0];
      DataFile* file = context_.devices->Find(extent.file_id);
      const uint64_t length = std::min<uint64_t>({works[i].item->bytes.size(), uint64_t{extent.units} * kUnitBytes});
      segments.push_back({.file = file->file.get(),
                          .offset = extent.offset(),
                          .memory = const_cast<std::byte*>(works[i].item->bytes.data()),
                          .length = length / kUnitBytes * kUnitBytes});
      owners.push_back(file);
      work_of_segment.push_back(i);
    }
  }
  return Transfer(works, std::move(segments), std::move(owners), std::move(work_of_segment));
}

void Stager::FinishRecord(Work& work) const {
  ObjectRecord& record = work.record;
  if (record.placement == Placement::kInline) {
    // Copied first: the fingerprint is of what is stored, whatever the caller's memory does meanwhile.
    work.staged.payload = std::make_shared<const std::string>(reinterpret_cast<const char*>(work.item->bytes.data()),
                                                              work.item->bytes.size());
    work.hashes = HashBlocks(BytesOf(*work.staged.payload), record.block_log2);
  }
  record.fingerprint = FingerprintOf(record, work.hashes);
  if (record.placement != Placement::kExtents) return;
  std::vector<uint64_t> sums;
  sums.reserve(work.hashes.size());
  for (const Sum128& hash : work.hashes) sums.push_back(hash.low);
  // An ephemeral object has no rows: its record in memory holds all of its sums.
  if (sums.size() <= kSumsInRecordMax || work.item->ephemeral) {
    record.sums = std::move(sums);
  } else {
    work.staged.sums = std::move(sums);
  }
}

absl::Status Stager::WriteTrailers(std::vector<Work>& works) {
  uint64_t bytes = 0;
  for (const Work& work : works) bytes += work.trailer_units * kUnitBytes;
  if (bytes == 0 || TS_MUTATE(skip_trailers)) return absl::OkStatus();
  TS_ASSIGN_OR_RETURN(MemoryPool::Piece piece, context_.devices->pool()->Allocate(bytes));
  std::vector<Segment> segments;
  std::vector<DataFile*> owners;
  std::vector<size_t> work_of_segment;
  uint64_t used = 0;
  for (size_t i = 0; i < works.size(); ++i) {
    Work& work = works[i];
    if (work.trailer_units == 0) continue;
    const Extent& extent = work.record.trailer;
    const std::span<std::byte> to(piece.data() + used, work.trailer_units * kUnitBytes);
    used += to.size();
    TS_ASSIGN_OR_RETURN(const std::string record, EncodeRecord(work.record));
    const std::vector<uint64_t>& sums = work.record.sums.empty() ? work.staged.sums : work.record.sums;
    TS_CHECK(TrailerUnits(record.size(), work.item->name.size(), sums.size()) <= work.trailer_units);
    EncodeTrailer({.store_uuid = context_.store_uuid,
                   .generation = work.record.generation,
                   .self_file = extent.file_id,
                   .self_unit = extent.first_unit,
                   .record = BytesOf(record),
                   .name = BytesOf(work.item->name),
                   .sums = sums},
                  to);
    DataFile* file = context_.devices->Find(extent.file_id);
    segments.push_back({.file = file->file.get(), .offset = extent.offset(), .memory = to.data(), .length = to.size()});
    owners.push_back(file);
    work_of_segment.push_back(i);
  }
  return Transfer(works, std::move(segments), std::move(owners), std::move(work_of_segment));
}

absl::StatusOr<std::vector<StagedObject>> Stager::Stage(std::span<const PutItem> items, bool lone,
                                                        const std::function<bool(const PutItem& item)>& may_skip) {
  for (const PutItem& item : items) TS_RETURN_IF_ERROR(CheckItem(item));
  const StoreOptions& options = *context_.options;
  const uint64_t inline_bytes_max = lone && items.size() == 1
                                        ? std::max(options.inline_bytes_max, options.lone_inline_bytes_max)
                                        : options.inline_bytes_max;
  std::vector<Work> works(items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    Work& work = works[i];
    work.item = &items[i];
    work.staged.name = items[i].name;
    work.staged.precondition = items[i].precondition;
    work.staged.ephemeral = items[i].ephemeral;
    if (items[i].skip_unchanged && !items[i].ephemeral && may_skip(items[i])) {
      TS_ASSIGN_OR_RETURN(const bool unchanged, FindUnchanged(items[i], work.staged));
      if (unchanged) continue;
    }
    TS_ASSIGN_OR_RETURN(work.record, NewRecord(items[i], inline_bytes_max));
    if (work.record.placement == Placement::kExtents) work.data_units = UnitsFor(work.record.stored_bytes);
  }
  for (Work& work : works) {
    // A record grows with its extents, which are not known yet: assume one. An object that ends up in more pieces gets
    // the trailer that its record needs when they are known.
    if (work.data_units == 0) continue;
    ObjectRecord one_extent = work.record;
    one_extent.columns.assign(1, std::vector<Extent>(1));
    work.trailer_units = TrailerUnitsFor(*work.item, one_extent);
  }
  TS_RETURN_IF_ERROR(Reserve(works));
  TS_RETURN_IF_ERROR(WriteData(works));
  for (Work& work : works) {
    if (!work.staged.is_unchanged) FinishRecord(work);
  }
  TS_RETURN_IF_ERROR(WriteTrailers(works));
  std::vector<StagedObject> staged;
  staged.reserve(works.size());
  for (Work& work : works) {
    if (!work.staged.is_unchanged) work.staged.record = std::make_shared<const ObjectRecord>(std::move(work.record));
    staged.push_back(std::move(work.staged));
  }
  return staged;
}

void Stager::MarkBad(const Extent& bad, ReservedSpace& space) {
  std::vector<Extent> rest;
  for (const Extent& extent : space.Take()) {
    const uint64_t begin = std::max(extent.first_unit, bad.first_unit);
    const uint64_t end = std::min(extent.end_unit(), bad.end_unit());
    if (extent.file_id != bad.file_id || begin >= end) {
      rest.push_back(extent);
      continue;
    }
    if (extent.first_unit < begin) {
      rest.push_back({extent.file_id, static_cast<uint32_t>(begin - extent.first_unit), extent.first_unit});
    }
    if (end < extent.end_unit()) {
      rest.push_back({extent.file_id, static_cast<uint32_t>(extent.end_unit() - end), end});
    }
  }
  context_.allocator->Move({&bad, 1}, SpaceState::kReserved, SpaceState::kBad);
  space = ReservedSpace(context_.allocator, std::move(rest));
  absl::MutexLock lock(&mutex_);
  bad_units_.push_back(bad);
}

std::vector<Extent> Stager::TakeBadUnits() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(bad_units_, {});
}

}  // namespace tensorshelf
