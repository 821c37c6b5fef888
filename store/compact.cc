// One run: file by file, in passes of waves. A wave reads all names with their records, keeps the 131072 objects that
// lie highest below the last wave's lowest (so memory is bounded, whatever the store holds), and moves them from the
// highest down. What was below everything else in one pass may find a hole in the next, so passes go on until one moves
// nothing. An object moves only to a place below its own: that ends.

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

// The highest of the object's runs in that file: an extent and what touches it. Nothing: it has none there.
std::optional<Extent> HighestRun(std::vector<Extent> extents, uint32_t file_id) {
  std::erase_if(extents, [&](const Extent& extent) { return extent.file_id != file_id || extent.units == 0; });
  if (extents.empty()) return std::nullopt;
  std::ranges::sort(extents, std::greater<>(), &Extent::first_unit);
  Extent run = extents[0];
  for (size_t i = 1; i < extents.size() && extents[i].end_unit() == run.first_unit; ++i) {
    run.first_unit = extents[i].first_unit;
    run.units += extents[i].units;
  }
  return run;
}

bool AnyIn(const std::vector<Extent>& extents, uint32_t file_id) {
  return std::ranges::any_of(extents, [&](const Extent& extent) { return extent.file_id == file_id; });
}

SpaceShape ShapeOf(const ExtentAllocator& allocator) {
  SpaceShape shape{.fragmentation = allocator.FragmentationScore()};
  for (const FileSpace& file : allocator.files()) {
    shape.free_bytes += file.counters[SpaceState::kFree] * kUnitBytes;
    shape.largest_free = std::max(shape.largest_free, file.largest_free_units * kUnitBytes);
    shape.free_at_ends += file.end_free_units * kUnitBytes;
  }
  return shape;
}

// Places that moves of a batch which is not yet committed will leave: (file, first unit) of their runs.
using Leaving = absl::flat_hash_set<std::pair<uint32_t, uint64_t>>;

absl::StatusOr<Extent> ReserveBelow(ExtentAllocator& allocator, uint64_t units, bool large, const Extent& run,
                                    Leaving& leaving) {
  const bool behind_leaves = leaving.contains({run.file_id, run.end_unit()});
  auto place = allocator.ReserveBelow({.units = units, .large = large, .leaving = run, .behind_leaves = behind_leaves});
  if (place.ok()) leaving.insert({run.file_id, run.first_unit});
  return place;
}

// An object of several columns: those that lie in the file move down, each on its own.
absl::Status PlaceColumnsBelow(ExtentAllocator& allocator, const ObjectRecord& from, uint32_t file_id, Leaving& leaving,
                               PlannedMove& move) {
  bool moves = false;
  for (size_t column = 0; column < from.columns.size(); ++column) {
    const auto highest = HighestRun(from.columns[column], file_id);
    if (!highest) continue;
    uint64_t units = 0;
    for (const Extent& extent : from.columns[column]) units += extent.units;
    const auto run = ReserveBelow(allocator, units, /*large=*/true, *highest, leaving);
    if (absl::IsResourceExhausted(run.status())) continue;
    if (!run.ok()) return run.status();
    move.to.columns[column] = {*run};
    move.columns_moved[column] = moves = true;
    move.space.Add({*run});
  }
  if (from.trailer.units == 0) return moves ? absl::OkStatus() : absl::ResourceExhaustedError("no hole below it");
  const uint64_t units = TrailerUnitsOf(move.to, move.name);
  auto trailer = ReserveBelow(allocator, units, /*large=*/false, from.trailer, leaving);
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

// Plans a move of what the object has in that file to a lower place. ResourceExhausted: there is none.
absl::Status PlaceBelow(ExtentAllocator& allocator, const ObjectRecord& from, uint32_t file_id, Leaving& leaving,
                        PlannedMove& move) {
  move.to = NextPlace(from);
  move.columns_moved.assign(from.columns.size(), false);
  move.space = ReservedSpace(&allocator, {});
  if (from.columns.size() > 1 || !AnyIn(from.columns[0], file_id)) {
    return PlaceColumnsBelow(allocator, from, file_id, leaving, move);
  }
  ObjectRecord one_run = move.to;
  one_run.columns.assign(1, std::vector<Extent>(1));
  const uint64_t units = UnitsFor(from.stored_bytes) + TrailerUnitsOf(one_run, move.name);
  TS_ASSIGN_OR_RETURN(const Extent run, ReserveBelow(allocator, units, from.stored_bytes >= kLargeObjectBytes,
                                                     *HighestRun(ExtentsOf(from), file_id), leaving));
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
        TS_RETURN_IF_ERROR(RunPass(file.file));
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

  absl::Status RunPass(const SpaceFile& file) {
    uint64_t frontier = file.end_unit;
    while (!report_.stopped) {
      std::map<uint64_t, Entry> wave;
      TS_ASSIGN_OR_RETURN(const bool complete, Collect(file.file_id, frontier, wave));
      if (wave.empty()) return absl::OkStatus();
      frontier = wave.begin()->first;
      TS_RETURN_IF_ERROR(RunWave(file.file_id, wave));
      if (complete) return absl::OkStatus();
    }
    return absl::OkStatus();
  }

  // The highest objects below `frontier`; true: these are all.
  absl::StatusOr<bool> Collect(uint32_t file_id, uint64_t frontier, std::map<uint64_t, Entry>& wave) {
    bool complete = true;
    uint64_t name_bytes = 0;
    TS_RETURN_IF_ERROR(moves_.scan([&](const ObjectCursor& cursor) {
      if (!cursor.status().ok()) return;  // damaged, or of a newer version: fsck and ls tell of them
      const ObjectRecord& record = current_(cursor.record());
      const auto highest = HighestRun(ExtentsOf(record), file_id);
      if (!highest || highest->first_unit >= frontier || damaged_.contains(record.generation)) return;
      if (wave.size() >= kWaveObjects && highest->first_unit < wave.begin()->first) {
        complete = false;
        return;
      }
      // A clone has the same place, and moves with it.
      const auto [entry, is_new] = wave.try_emplace(highest->first_unit, Entry{cursor.name(), record.generation});
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
    const absl::Status placed = PlaceBelow(allocator_, record, file_id, leaving_, move);
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
    leaving_.clear();
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
  Leaving leaving_;                        // of the batch at hand
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
