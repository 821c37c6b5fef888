#include "store/move.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "index/record_codec.h"
#include "store/layout.h"
#include "store/name.h"
#include "store/store_core.h"
#include "store/trailer.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kWindowBytes = uint64_t{8} << 20;  // of the memory that a copy goes through

std::string Quoted(const std::string& name) { return absl::StrCat("\"", EscapeForTerminal(name), "\""); }

uint64_t InUnits(uint64_t bytes) { return UnitsFor(bytes) * kUnitBytes; }

uint64_t BytesOfColumn(const ObjectRecord& record, size_t column) {
  return ColumnBytes(record.stored_bytes, record.stripe_log2, static_cast<uint32_t>(record.columns.size()),
                     static_cast<uint32_t>(column));
}

// What becomes of a move whose source cannot be read. One that was dropped or moved meanwhile is nobody's damage.
MoveResult UnreadableSource(Index& index, const ObjectRecord& record, const absl::Status& why) {
  const auto now = index.FindRecord(record.generation, /*is_inline=*/false);
  if (!now.ok() || (*now)->place_seq != record.place_seq) return {MoveFate::kLost, 0, absl::OkStatus()};
  return {MoveFate::kDamaged, 0, why};
}

bool IsSourceError(const absl::Status& status) {
  return absl::IsDataLoss(status) || absl::IsInternal(status) || KindOf(status) == ErrorKind::kCorruption ||
         KindOf(status) == ErrorKind::kDeviceMissing;
}

}  // namespace

const char* MoveFateName(MoveFate fate) {
  switch (fate) {
    case MoveFate::kMoved:
      return "moved";
    case MoveFate::kLost:
      return "lost";
    case MoveFate::kDamaged:
      return "damaged";
    case MoveFate::kNoRoom:
      return "no room";
    case MoveFate::kNotMovable:
      return "not movable";
  }
  return "unknown";
}

uint64_t PlannedMove::moved_bytes() const {
  uint64_t bytes = 0;
  for (size_t column = 0; column < columns_moved.size(); ++column) {
    if (columns_moved[column]) bytes += BytesOfColumn(to, column);
  }
  return bytes;
}

absl::Status CheckMovable(const ObjectRecord& record) {
  if (record.placement != Placement::kExtents) return absl::FailedPreconditionError("it has no extents");
  if (record.incompat != 0 || record.encoding != 0 || record.sum_algo != 1) {
    return absl::FailedPreconditionError("it uses features that this build does not know");
  }
  if (record.place_seq == UINT32_MAX) return absl::FailedPreconditionError("it was moved 2^32 - 1 times");
  return CheckLayout(record);
}

ObjectRecord NextPlace(const ObjectRecord& from) {
  ObjectRecord to = from;
  ++to.place_seq;
  return to;
}

uint64_t TrailerUnitsOf(const ObjectRecord& to, const std::string& name) {
  if (to.trailer.units == 0) return 0;
  return TrailerUnits(EncodedRecordSize(to, to.sums.size()), name.size(), to.sums_count());
}

void PlaceInRun(const Extent& run, PlannedMove& move) {
  const auto data_units = static_cast<uint32_t>(UnitsFor(move.to.stored_bytes));
  move.to.columns.assign(1, {{run.file_id, data_units, run.first_unit}});
  move.columns_moved.assign(1, true);
  if (run.units > data_units) {
    move.to.trailer = {run.file_id, run.units - data_units, run.first_unit + data_units};
  }
  move.space.Add({run});
}

absl::Status PlaceAnew(ExtentAllocator& allocator, const ObjectRecord& from, const PlaceOptions& options,
                       PlannedMove& move) {
  const auto leaves = [&](const Extent& extent) {
    return options.away_from.empty() ||
           std::find(options.away_from.begin(), options.away_from.end(), extent.file_id) != options.away_from.end();
  };
  move.to = NextPlace(from);
  move.columns_moved.assign(from.columns.size(), false);
  move.space = ReservedSpace(&allocator, {});
  const bool large = from.stored_bytes >= kLargeObjectBytes;
  if (from.columns.size() == 1 && from.trailer.units > 0 &&
      std::any_of(from.columns[0].begin(), from.columns[0].end(), leaves)) {
    ObjectRecord one_run = move.to;
    one_run.columns.assign(1, std::vector<Extent>(1));
    auto run = allocator.Reserve({.units = UnitsFor(from.stored_bytes) + TrailerUnitsOf(one_run, move.name),
                                  .file_id = options.file_id,
                                  .large = large,
                                  .allow_split = false});
    if (run.ok()) {
      PlaceInRun((*run)[0], move);
      return absl::OkStatus();
    }
  }
  for (size_t column = 0; column < from.columns.size(); ++column) {
    std::vector<Extent>& extents = move.to.columns[column];
    if (!std::any_of(extents.begin(), extents.end(), leaves)) continue;
    TS_ASSIGN_OR_RETURN(
        extents, allocator.Reserve(
                     {.units = UnitsFor(BytesOfColumn(from, column)), .file_id = options.file_id, .large = large}));
    move.space.Add(extents);
    move.columns_moved[column] = true;
  }
  if (from.trailer.units == 0) return absl::OkStatus();
  // It holds the record, so it is new wherever the object lies.
  TS_ASSIGN_OR_RETURN(auto trailer, allocator.Reserve({.units = TrailerUnitsOf(move.to, move.name),
                                                       .file_id = options.file_id,
                                                       .allow_split = false}));
  move.to.trailer = trailer[0];
  move.space.Add(std::move(trailer));
  return absl::OkStatus();
}

// Whole blocks, but for the object's last one; never more than a window.
struct Mover::Range {
  size_t move = 0;
  uint64_t offset = 0;  // in the object
  uint64_t length = 0;
};

std::vector<Mover::Range> Mover::RangesOf(std::span<const PlannedMove> moves) {
  std::vector<Range> ranges;
  for (size_t i = 0; i < moves.size(); ++i) {
    const ObjectRecord& record = moves[i].to;
    const size_t columns = record.columns.size();
    const uint64_t window = std::max(kWindowBytes, record.block_bytes());
    const uint64_t piece = columns == 1 ? record.stored_bytes : uint64_t{1} << record.stripe_log2;
    for (uint64_t begin = 0, column = 0; begin < record.stored_bytes; begin += piece, column = (column + 1) % columns) {
      if (!moves[i].columns_moved[column]) continue;
      const uint64_t end = std::min(begin + piece, record.stored_bytes);
      for (uint64_t at = begin; at < end; at += window) ranges.push_back({i, at, std::min(window, end - at)});
    }
  }
  return ranges;
}

// What cannot be read fails its own move; the others' bytes are there.
absl::Status Mover::ReadRanges(std::span<PlannedMove> moves, std::span<const Range> ranges, std::byte* memory,
                               Priority priority) {
  std::vector<ReadItem> items;
  for (const Range& range : ranges) {
    const PlannedMove& move = moves[range.move];
    items.push_back({.name = &move.name,
                     .record = &move.source.record(),
                     .payload = nullptr,
                     .offset = range.offset,
                     .to = {memory, range.length}});
    memory += InUnits(range.length);
  }
  if (context_.reader->Read(items, /*verify=*/true, priority).ok()) return absl::OkStatus();
  for (size_t i = 0; i < items.size(); ++i) {
    MoveResult& result = moves[ranges[i].move].result;
    if (result.fate != MoveFate::kMoved) continue;
    absl::Status status = context_.reader->Read({&items[i], 1}, /*verify=*/true, priority);
    if (status.ok()) continue;
    if (!IsSourceError(status)) return status;
    result = UnreadableSource(*context_.index, *items[i].record, status);
    if (result.fate == MoveFate::kDamaged && absl::IsInternal(status)) {
      context_.parked->MarkUnreadable(items[i].record->generation);
    }
  }
  return absl::OkStatus();
}

absl::Status Mover::Write(std::span<PlannedMove> moves, std::vector<Segment> segments, std::vector<DataFile*> owners,
                          const std::vector<size_t>& move_of_segment, Priority priority) {
  const std::vector<Segment> kept = segments;  // to say where a failed one was
  const BatchResult result = context_.devices->Transfer(IoKind::kWrite, priority, std::move(segments), owners);
  if (result.status.ok()) return absl::OkStatus();
  PlannedMove& move = moves[move_of_segment[result.failed_segment]];
  if (absl::IsInternal(result.status)) {
    const Segment& failed = kept[result.failed_segment];
    context_.stager->MarkBad({owners[result.failed_segment]->row.file_id,
                              static_cast<uint32_t>(UnitsFor(failed.length)), failed.offset / kUnitBytes},
                             move.space);
  }
  return Annotate(result.status, absl::StrCat("moving ", Quoted(move.name)));
}

absl::Status Mover::CopyRanges(std::span<PlannedMove> moves, std::span<const Range> ranges, Priority priority) {
  uint64_t bytes = 0;
  for (const Range& range : ranges) bytes += InUnits(range.length);
  TS_ASSIGN_OR_RETURN(const MemoryPool::Piece piece, context_.devices->pool()->Allocate(bytes));
  TS_RETURN_IF_ERROR(ReadRanges(moves, ranges, piece.data(), priority));
  std::vector<Segment> segments;
  std::vector<DataFile*> owners;
  std::vector<size_t> move_of_segment;
  std::byte* memory = piece.data();
  for (const Range& range : ranges) {
    const PlannedMove& move = moves[range.move];
    if (move.result.fate == MoveFate::kMoved) {
      for (const FileRun& run : RunsOf(move.to, range.offset, range.length)) {
        DataFile* file = context_.devices->Find(run.file_id);
        segments.push_back({.file = file->file.get(),
                            .offset = run.file_offset,
                            .memory = memory + (run.object_offset - range.offset),
                            .length = run.length});
        owners.push_back(file);
        move_of_segment.push_back(range.move);
      }
    }
    memory += InUnits(range.length);
  }
  return Write(moves, std::move(segments), std::move(owners), move_of_segment, priority);
}

absl::Status Mover::WriteTrailer(PlannedMove& move, Priority priority) {
  const ObjectRecord& to = move.to;
  std::vector<uint64_t> rows;
  if (to.sums.empty() && to.sums_count() > 0) {
    rows.resize(to.sums_count());
    const absl::Status read = context_.reader->ReadSums(to.generation, 0, std::span<uint64_t>(rows));
    if (!read.ok()) {
      move.result = UnreadableSource(*context_.index, move.source.record(), Annotate(read, Quoted(move.name)));
      return absl::OkStatus();
    }
  }
  TS_ASSIGN_OR_RETURN(const std::string record, EncodeRecord(to));
  TS_ASSIGN_OR_RETURN(const MemoryPool::Piece piece, context_.devices->pool()->Allocate(to.trailer.bytes()));
  EncodeTrailer({.store_uuid = context_.store_uuid,
                 .generation = to.generation,
                 .self_file = to.trailer.file_id,
                 .self_unit = to.trailer.first_unit,
                 .record = BytesOf(record),
                 .name = BytesOf(move.name),
                 .sums = to.sums.empty() ? rows : to.sums},
                {piece.data(), to.trailer.bytes()});
  DataFile* file = context_.devices->Find(to.trailer.file_id);
  std::vector<Segment> segments{
      {.file = file->file.get(), .offset = to.trailer.offset(), .memory = piece.data(), .length = to.trailer.bytes()}};
  return Write({&move, 1}, std::move(segments), {file}, {0}, priority);
}

absl::Status Mover::Run(std::span<PlannedMove> moves, Priority priority,
                        const std::function<bool(uint64_t bytes)>& copied) {
  const std::vector<Range> ranges = RangesOf(moves);
  for (size_t next = 0; next < ranges.size();) {
    size_t end = next;
    uint64_t bytes = 0;
    while (end < ranges.size() && (end == next || bytes + InUnits(ranges[end].length) <= kWindowBytes)) {
      bytes += InUnits(ranges[end++].length);
    }
    TS_RETURN_IF_ERROR(CopyRanges(moves, std::span(ranges).subspan(next, end - next), priority));
    if (copied && !copied(bytes)) return absl::CancelledError("stopped while it moved objects");
    next = end;
  }
  CommitRequest request;
  std::vector<PlannedMove*> committed;
  for (PlannedMove& move : moves) {
    if (move.result.fate == MoveFate::kMoved && move.to.trailer.units > 0) {
      TS_RETURN_IF_ERROR(WriteTrailer(move, priority));
    }
    move.source = Object();  // else this lease would hold the old place
    if (move.result.fate != MoveFate::kMoved) {
      move.space = ReservedSpace();
      continue;
    }
    move.result.bytes = move.moved_bytes();
    CommitOp& op = request.ops.emplace_back();
    op.kind = CommitOp::Kind::kMove;
    op.staged.name = move.name;
    op.staged.record = std::make_shared<const ObjectRecord>(move.to);
    op.staged.space = std::move(move.space);
    committed.push_back(&move);
  }
  if (committed.empty()) return absl::OkStatus();
  context_.queue->Run(request);
  if (!request.result.ok()) return request.result.status();
  for (size_t i = 0; i < committed.size(); ++i) {
    if (request.ops[i].lost) committed[i]->result = {MoveFate::kLost, 0, absl::OkStatus()};
  }
  return absl::OkStatus();
}

// --- StoreCore ---

absl::StatusOr<std::vector<MoveResult>> StoreCore::Move(std::span<const MoveRequest> requests) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  std::vector<MoveResult> results(requests.size());
  std::vector<PlannedMove> moves;
  std::vector<size_t> result_of_move;
  for (size_t i = 0; i < requests.size(); ++i) {
    TS_ASSIGN_OR_RETURN(Object source, FindLeased(requests[i].name, nullptr));
    absl::Status fit = source.ephemeral() ? absl::FailedPreconditionError("it is ephemeral") : absl::OkStatus();
    if (fit.ok()) fit = CheckMovable(source.record());
    if (!fit.ok()) {
      results[i] = {MoveFate::kNotMovable, 0, Annotate(fit, Quoted(requests[i].name))};
      continue;
    }
    PlannedMove move;
    move.name = requests[i].name;
    const PlaceOptions options{.file_id = requests[i].file_id};
    absl::Status placed = PlaceAnew(*allocator_, source.record(), options, move);
    if (absl::IsResourceExhausted(placed)) {
      Reclaim();
      placed = PlaceAnew(*allocator_, source.record(), options, move);
    }
    if (absl::IsResourceExhausted(placed)) {
      results[i] = {MoveFate::kNoRoom, 0, Annotate(placed, Quoted(requests[i].name))};
      continue;
    }
    TS_RETURN_IF_ERROR(placed);
    move.source = std::move(source);
    moves.push_back(std::move(move));
    result_of_move.push_back(i);
  }
  TS_RETURN_IF_ERROR(mover_->Run(moves, Priority::kForeground, nullptr));
  for (size_t i = 0; i < moves.size(); ++i) results[result_of_move[i]] = std::move(moves[i].result);
  return results;
}

}  // namespace tensorshelf
