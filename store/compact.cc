// One run: file by file, in passes, first the large objects, then the small ones, in waves. A wave reads all names with
// their records, keeps the 131072 objects that lie furthest from where they belong (so memory is bounded, whatever the
// store holds) and behind those of the last wave, and moves them, the furthest first. What had no better place in one
// pass may have one in the next, so passes go on until one moves nothing. A large object only moves down and a small
// one only up: that ends.

#include "store/compact.h"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "engine/foundation/status_macros.h"
#include "store/layout.h"
#include "store/move_run.h"
#include "store/space_map.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

constexpr size_t kWaveObjects = 131072;
constexpr uint64_t kWaveNameBytes = uint64_t{32} << 20;
constexpr int kPassesMax = 16;

// What of an object moves in one file, and from where: the run that is furthest from where objects of its size belong.
struct Piece {
  Extent run;
  bool large = false;
};

// The highest run of `extents` in that file, or the lowest: an extent and what touches it. Nothing: it has none there.
std::optional<Extent> OutermostRun(std::vector<Extent> extents, uint32_t file_id, bool highest) {
  std::erase_if(extents, [&](const Extent& extent) { return extent.file_id != file_id || extent.units == 0; });
  if (extents.empty()) return std::nullopt;
  std::ranges::sort(extents, {}, &Extent::first_unit);
  if (highest) std::ranges::reverse(extents);
  Extent run = extents[0];
  for (size_t i = 1; i < extents.size(); ++i) {
    const bool touches = highest ? extents[i].end_unit() == run.first_unit : run.end_unit() == extents[i].first_unit;
    if (!touches) break;
    run.first_unit = std::min(run.first_unit, extents[i].first_unit);
    run.units += extents[i].units;
  }
  return run;
}

std::vector<Extent> DataExtents(const ObjectRecord& record) {
  std::vector<Extent> extents;
  for (const auto& column : record.columns) extents.insert(extents.end(), column.begin(), column.end());
  return extents;
}

std::optional<Piece> PieceIn(const ObjectRecord& record, uint32_t file_id) {
  const bool large = record.stored_bytes >= kLargeObjectBytes;
  const Extent& trailer = record.trailer;
  auto run = OutermostRun(DataExtents(record), file_id, large);
  if (!run) {
    if (trailer.units == 0 || trailer.file_id != file_id) return std::nullopt;
    return Piece{trailer, false};
  }
  if (trailer.units > 0 && trailer.file_id == file_id && trailer.first_unit == run->end_unit()) {
    run->units += trailer.units;
  }
  return Piece{*run, large};
}

// Where a piece stands in the order of moves, the last one first: large ones from the highest down, small ones from the
// lowest up. No two pieces of one kind have the same rank.
uint64_t RankOf(const Piece& piece) { return piece.large ? piece.run.first_unit : UINT64_MAX - piece.run.first_unit; }

SpaceShape ShapeOf(const ExtentAllocator& allocator) {
  SpaceShape shape{.fragmentation = allocator.FragmentationScore()};
  for (const FileSpace& file : allocator.files()) {
    shape.free_bytes += file.counters[SpaceState::kFree] * kUnitBytes;
    shape.free_runs += file.free_extents;
    shape.largest_free = std::max(shape.largest_free, file.largest_free_units * kUnitBytes);
  }
  return shape;
}

// Runs that moves of a batch which is not yet committed will leave.
class LeavingRuns {
 public:
  // One unit behind a run that goes up, or the unit at which a run that goes down ended, is about to be free.
  bool Touches(const Extent& run, bool large) const {
    return large ? begins_.contains({run.file_id, run.end_unit()}) : ends_.contains({run.file_id, run.first_unit});
  }
  void Add(const Extent& run) {
    begins_.insert({run.file_id, run.first_unit});
    ends_.insert({run.file_id, run.end_unit()});
  }
  void Clear() {
    begins_.clear();
    ends_.clear();
  }

 private:
  absl::flat_hash_set<std::pair<uint32_t, uint64_t>> begins_, ends_;  // file, unit
};

absl::StatusOr<Extent> ReserveBetter(ExtentAllocator& allocator, uint64_t units, const Piece& piece,
                                     LeavingRuns& leaving) {
  auto place = allocator.ReserveBetter({.units = units,
                                        .large = piece.large,
                                        .leaving = piece.run,
                                        .neighbour_leaves = leaving.Touches(piece.run, piece.large)});
  if (place.ok()) leaving.Add(piece.run);
  return place;
}

// An object of several columns, or whose trailer alone lies in the file: each part that lies there, on its own.
absl::Status PlaceParts(ExtentAllocator& allocator, const ObjectRecord& from, uint32_t file_id, LeavingRuns& leaving,
                        PlannedMove& move) {
  bool moves = false;
  for (size_t column = 0; column < from.columns.size(); ++column) {
    const auto run = OutermostRun(from.columns[column], file_id, /*highest=*/true);
    if (!run) continue;
    uint64_t units = 0;
    for (const Extent& extent : from.columns[column]) units += extent.units;
    const auto place = ReserveBetter(allocator, units, {*run, /*large=*/true}, leaving);
    if (absl::IsResourceExhausted(place.status())) continue;
    if (!place.ok()) return place.status();
    move.to.columns[column] = {*place};
    move.columns_moved[column] = moves = true;
    move.space.Add({*place});
  }
  if (from.trailer.units == 0) return moves ? absl::OkStatus() : absl::ResourceExhaustedError("no better place");
  const uint64_t units = TrailerUnitsOf(move.to, move.name);
  absl::StatusOr<Extent> trailer = absl::ResourceExhaustedError("no better place");
  if (from.trailer.file_id == file_id) trailer = ReserveBetter(allocator, units, {from.trailer, false}, leaving);
  if (moves && absl::IsResourceExhausted(trailer.status())) {
    TS_ASSIGN_OR_RETURN(const auto anywhere,
                        allocator.Reserve({.units = units, .file_id = from.trailer.file_id, .allow_split = false}));
    trailer = anywhere[0];
  }
  if (!trailer.ok()) return trailer.status();
  move.to.trailer = *trailer;
  move.space.Add({*trailer});
  return absl::OkStatus();
}

// Plans a move of what the object has in that file to a better place there. ResourceExhausted: there is none.
absl::Status PlaceBetter(ExtentAllocator& allocator, const ObjectRecord& from, uint32_t file_id, LeavingRuns& leaving,
                         PlannedMove& move) {
  move.to = NextPlace(from);
  move.columns_moved.assign(from.columns.size(), false);
  move.space = ReservedSpace(&allocator, {});
  const bool has_data = OutermostRun(DataExtents(from), file_id, /*highest=*/true).has_value();
  if (from.columns.size() > 1 || !has_data) return PlaceParts(allocator, from, file_id, leaving, move);
  ObjectRecord one_run = move.to;
  one_run.columns.assign(1, std::vector<Extent>(1));
  const uint64_t units = UnitsFor(from.stored_bytes) + TrailerUnitsOf(one_run, move.name);
  TS_ASSIGN_OR_RETURN(const Extent run, ReserveBetter(allocator, units, *PieceIn(from, file_id), leaving));
  PlaceInRun(run, move);
  return absl::OkStatus();
}

// One run. Confined to one thread.
class Compaction {
 public:
  // `current`: the record as it is by now, of one that the store has.
  using Current = std::function<const ObjectRecord&(const ObjectRecord& record)>;
  Compaction(ExtentAllocator& allocator, MoveRun moves, Current current, const CompactOptions& options)
      : allocator_(allocator), moves_(std::move(moves)), current_(std::move(current)), options_(options) {}

  absl::StatusOr<CompactReport> Run() {
    report_.before = ShapeOf(allocator_);
    for (const FileSpace& file : allocator_.files()) {
      if (file.read_only) continue;
      for (int pass = 0; pass < kPassesMax && !report_.stopped; ++pass) {
        first_pass_ = pass == 0;
        const uint64_t moved = report_.objects_moved;
        for (const bool large : {true, false}) TS_RETURN_IF_ERROR(RunPass(file.file, large));
        if (report_.objects_moved == moved) break;
      }
    }
    report_.after = ShapeOf(allocator_);
    return report_;
  }

 private:
  struct Entry {
    std::string name;
    uint64_t generation = 0;
  };

  absl::Status RunPass(const SpaceFile& file, bool large) {
    uint64_t frontier = UINT64_MAX;
    while (!report_.stopped) {
      std::map<uint64_t, Entry> wave;
      TS_ASSIGN_OR_RETURN(const bool complete, Collect(file.file_id, large, frontier, wave));
      if (wave.empty()) return absl::OkStatus();
      frontier = wave.begin()->first;
      TS_RETURN_IF_ERROR(RunWave(file.file_id, wave));
      if (complete) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // By rank, those of one kind that rank highest below `frontier`; true: these are all.
  absl::StatusOr<bool> Collect(uint32_t file_id, bool large, uint64_t frontier, std::map<uint64_t, Entry>& wave) {
    bool complete = true;
    uint64_t name_bytes = 0;
    TS_RETURN_IF_ERROR(moves_.scan([&](const ObjectCursor& cursor) {
      if (!cursor.status().ok()) return;  // damaged, or of a newer version: fsck and ls tell of them
      const ObjectRecord& record = current_(cursor.record());
      const std::optional<Piece> piece = PieceIn(record, file_id);
      if (!piece || piece->large != large || damaged_.contains(record.generation)) return;
      const uint64_t rank = RankOf(*piece);
      if (rank >= frontier) return;
      if (wave.size() >= kWaveObjects && rank < wave.begin()->first) {
        complete = false;
        return;
      }
      // A clone has the same place, and moves with it.
      const auto [entry, is_new] = wave.try_emplace(rank, Entry{cursor.name(), record.generation});
      if (!is_new) return;
      name_bytes += cursor.name().size();
      while (wave.size() > kWaveObjects || name_bytes > kWaveNameBytes) {
        name_bytes -= wave.begin()->second.name.size();
        wave.erase(wave.begin());
        complete = false;
      }
    }));
    return complete;
  }

  absl::Status RunWave(uint32_t file_id, const std::map<uint64_t, Entry>& wave) {
    std::vector<PlannedMove> batch;
    uint64_t batch_bytes = 0;
    for (auto entry = wave.rbegin(); entry != wave.rend() && !report_.stopped; ++entry) {
      if (moves_.stop()) {
        report_.stopped = true;
        break;
      }
      if (first_pass_) ++report_.objects_examined;
      const auto plan = [&](Object object) {
        return Plan(std::move(object), entry->second.name, file_id, batch, batch_bytes);
      };
      TS_ASSIGN_OR_RETURN(const bool found, moves_.find(entry->second.name, entry->second.generation, plan));
      if (!found) ++report_.objects_lost;
      if (batch.size() >= kMoveBatchObjects || batch_bytes >= kMoveBatchBytes) {
        TS_RETURN_IF_ERROR(Carry(batch));
        batch_bytes = 0;
      }
    }
    if (report_.stopped) return absl::OkStatus();
    return Carry(batch);
  }

  absl::Status Plan(Object object, const std::string& name, uint32_t file_id, std::vector<PlannedMove>& batch,
                    uint64_t& batch_bytes) {
    const ObjectRecord& record = current_(object.record());
    if (!CheckMovable(record).ok()) {
      if (first_pass_) ++report_.objects_skipped;
      return absl::OkStatus();
    }
    PlannedMove move;
    move.name = name;
    const absl::Status placed = PlaceBetter(allocator_, record, file_id, leaving_, move);
    if (absl::IsResourceExhausted(placed) || absl::IsFailedPrecondition(placed)) return absl::OkStatus();
    TS_RETURN_IF_ERROR(placed);
    move.source = std::move(object);
    batch_bytes += move.moved_bytes();
    batch.push_back(std::move(move));
    return absl::OkStatus();
  }

  absl::Status Carry(std::vector<PlannedMove>& batch) {
    if (batch.empty()) return absl::OkStatus();
    const absl::Status status = moves_.run(batch);
    if (absl::IsCancelled(status)) {
      report_.stopped = true;
    } else {
      TS_RETURN_IF_ERROR(status);
      for (const PlannedMove& move : batch) Count(move);
    }
    batch.clear();
    leaving_.Clear();
    if (options_.progress) options_.progress(report_);
    return absl::OkStatus();
  }

  void Count(const PlannedMove& move) {
    const MoveResult& result = move.result;
    switch (result.fate) {
      case MoveFate::kMoved:
        ++report_.objects_moved;
        report_.bytes_moved += result.bytes;
        break;
      case MoveFate::kLost:
        ++report_.objects_lost;
        break;
      case MoveFate::kDamaged:
        ++report_.objects_damaged;
        damaged_.insert(move.to.generation);
        if (report_.damage.size() < kDamageListed) report_.damage.emplace_back(result.why.message());
        break;
      case MoveFate::kNoRoom:
      case MoveFate::kNotMovable:
        ++report_.objects_skipped;
        break;
    }
  }

  ExtentAllocator& allocator_;
  const MoveRun moves_;
  const Current current_;
  const CompactOptions& options_;
  CompactReport report_;
  bool first_pass_ = true;
  LeavingRuns leaving_;                    // of the batch at hand
  absl::flat_hash_set<uint64_t> damaged_;  // generations, not to be read again
};

// Moves on a map of the space alone. Holds the records of all objects that moved.
class Rehearsal {
 public:
  explicit Rehearsal(ExtentAllocator* map) : map_(map) {}

  const ObjectRecord& Current(const ObjectRecord& record) const {
    const auto moved = moved_.find(record.generation);
    return moved == moved_.end() ? record : *moved->second;
  }

  void Move(PlannedMove& move) {
    const std::vector<Extent> kept = ExtentsOf(move.to);
    std::vector<Extent> left = ExtentsOf(Current(move.source.record()));
    std::erase_if(left, [&](const Extent& extent) { return std::ranges::find(kept, extent) != kept.end(); });
    move.space.BecomeState(SpaceState::kLive);
    map_->Move(left, SpaceState::kLive, SpaceState::kParked);
    map_->Move(left, SpaceState::kParked, SpaceState::kFree);
    move.result.bytes = move.moved_bytes();
    moved_[move.to.generation] = std::make_unique<const ObjectRecord>(move.to);
  }

 private:
  ExtentAllocator* const map_;
  absl::flat_hash_map<uint64_t, std::unique_ptr<const ObjectRecord>> moved_;
};

}  // namespace

absl::StatusOr<CompactReport> StoreCore::Compact(const CompactOptions& options) {
  MoveRun moves = NewMoveRun(options.rate_bytes_per_s, options.stop);
  if (!options.dry_run) {
    {
      absl::ReaderMutexLock lock(&lifecycle_);
      TS_RETURN_IF_ERROR(CheckWritable());
      Reclaim();
    }
    const auto as_it_is = [](const ObjectRecord& record) -> const ObjectRecord& { return record; };
    return Compaction(*allocator_, std::move(moves), as_it_is, options).Run();
  }
  TS_ASSIGN_OR_RETURN(SpaceMap space, MapSpace());
  if (!space.problems.empty()) return absl::DataLossError(space.problems[0].message);
  std::vector<SpaceFile> files;
  for (const FileUse& file : space.files) files.push_back(file.file);
  TS_ASSIGN_OR_RETURN(const auto map, ExtentAllocator::Rebuild(files, std::move(space.owned)));
  Rehearsal rehearsal(map.get());
  moves.run = [&](std::span<PlannedMove> planned) {
    for (PlannedMove& move : planned) rehearsal.Move(move);
    return absl::OkStatus();
  };
  const auto current = [&](const ObjectRecord& record) -> const ObjectRecord& { return rehearsal.Current(record); };
  return Compaction(*map, std::move(moves), current, options).Run();
}

}  // namespace tensorshelf
