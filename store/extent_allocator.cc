#include "store/extent_allocator.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

uint64_t Sum(std::span<const uint64_t> values) { return std::accumulate(values.begin(), values.end(), uint64_t{0}); }

}  // namespace

const char* SpaceStateName(SpaceState state) {
  switch (state) {
    case SpaceState::kReserved:
      return "reserved";
    case SpaceState::kLive:
      return "live";
    case SpaceState::kParked:
      return "parked";
    case SpaceState::kFree:
      return "free";
    case SpaceState::kScratch:
      return "scratch";
    case SpaceState::kLimbo:
      return "limbo";
    case SpaceState::kBad:
      return "bad";
  }
  return "unknown";
}

uint64_t SpaceCounters::total() const { return Sum(units); }

absl::Status ExtentAllocator::AddFile(const SpaceFile& file) {
  constexpr uint64_t kUnitMax = (uint64_t{1} << 63) / kUnitBytes;
  if (file.first_unit >= file.end_unit || file.end_unit > kUnitMax ||
      file.units() > std::numeric_limits<uint32_t>::max()) {
    return absl::InvalidArgumentError(absl::StrCat("data file ", file.file_id, ": units [", file.first_unit, ", ",
                                                   file.end_unit, ") are no data area"));
  }
  const UnitRun all{file.first_unit, file.units()};
  absl::MutexLock lock(&mutex_);
  if (files_.contains(file.file_id)) {
    return absl::AlreadyExistsError(absl::StrCat("data file ", file.file_id, " is known already"));
  }
  FileState& state = files_[file.file_id];
  state.file = file;
  state.free = FreeRuns({&all, 1});
  state.counters[SpaceState::kFree] = file.units();
  totals_[SpaceState::kFree] += file.units();
  return absl::OkStatus();
}

absl::Status ExtentAllocator::RemoveFile(uint32_t file_id) {
  absl::MutexLock lock(&mutex_);
  const FileState* state = FindLocked(file_id);
  if (state == nullptr) return absl::NotFoundError(absl::StrCat("data file ", file_id, " is unknown"));
  const uint64_t free = state->counters[SpaceState::kFree], bad = state->counters[SpaceState::kBad];
  if (free + bad != state->file.units()) {
    return absl::FailedPreconditionError(absl::StrCat("data file ", file_id, " still holds ",
                                                      state->file.units() - free - bad, " units that are in use"));
  }
  totals_[SpaceState::kFree] -= free;
  totals_[SpaceState::kBad] -= bad;
  files_.erase(file_id);
  return absl::OkStatus();
}

absl::Status ExtentAllocator::SetReadOnly(uint32_t file_id) {
  absl::MutexLock lock(&mutex_);
  FileState* state = FindLocked(file_id);
  if (state == nullptr) return absl::NotFoundError(absl::StrCat("data file ", file_id, " is unknown"));
  state->read_only = true;
  return absl::OkStatus();
}

absl::Status ExtentAllocator::SetDraining(uint32_t file_id, bool draining) {
  absl::MutexLock lock(&mutex_);
  FileState* state = FindLocked(file_id);
  if (state == nullptr) return absl::NotFoundError(absl::StrCat("data file ", file_id, " is unknown"));
  state->draining = draining;
  return absl::OkStatus();
}

absl::Status ExtentAllocator::SetFilled(uint32_t file_id, uint64_t unit) {
  absl::MutexLock lock(&mutex_);
  FileState* state = FindLocked(file_id);
  if (state == nullptr) return absl::NotFoundError(absl::StrCat("data file ", file_id, " is unknown"));
  state->free.SetFilled(std::clamp(unit, state->file.first_unit, state->file.end_unit));
  return absl::OkStatus();
}

ExtentAllocator::FileState* ExtentAllocator::FindLocked(uint32_t file_id) {
  const auto found = files_.find(file_id);
  return found == files_.end() ? nullptr : &found->second;
}

void ExtentAllocator::CountLocked(FileState& state, uint64_t units, SpaceState from, SpaceState to) {
  TS_CHECK(state.counters[from] >= units);
  state.counters[from] -= units;
  if (!TS_MUTATE(miscount_space)) state.counters[to] += units;
  totals_[from] -= units;
  totals_[to] += units;
  TS_CHECK(state.counters.total() == state.file.units());
  TS_CHECK(state.counters[SpaceState::kFree] == state.free.units());
}

Extent ExtentAllocator::TakeLocked(FileState& state, uint64_t first_unit, uint64_t units) {
  state.free.Take({first_unit, units});
  CountLocked(state, units, SpaceState::kFree, SpaceState::kReserved);
  return Extent{state.file.file_id, static_cast<uint32_t>(units), first_unit};
}

absl::StatusOr<std::vector<ExtentAllocator::FileState*>> ExtentAllocator::CandidatesLocked(
    std::optional<uint32_t> file_id) {
  std::vector<FileState*> files;
  if (file_id) {
    FileState* state = FindLocked(*file_id);
    if (state == nullptr) return absl::NotFoundError(absl::StrCat("data file ", *file_id, " is unknown"));
    if (!state->takes_data()) {
      return absl::FailedPreconditionError(absl::StrCat("data file ", *file_id, " takes no new data"));
    }
    files.push_back(state);
    return files;
  }
  for (auto& [id, state] : files_) {
    if (state.takes_data()) files.push_back(&state);
  }
  const auto share = [](const FileState* state) {
    return static_cast<double>(state->free.units()) / static_cast<double>(state->file.units());
  };
  if (files.size() == 1) return files;
  std::stable_sort(files.begin(), files.end(),
                   [&](const FileState* a, const FileState* b) { return share(a) > share(b); });
  return files;
}

std::optional<std::pair<ExtentAllocator::FileState*, UnitRun>> ExtentAllocator::FindRunLocked(
    const FreeRuns::Fit& fit, std::span<FileState* const> files) {
  for (FileState* state : files) {
    if (const auto run = state->free.FindBest(fit)) return std::pair(state, *run);
  }
  return std::nullopt;
}

std::optional<ExtentAllocator::Runs> ExtentAllocator::ReserveOneRunLocked(const ReserveRequest& request,
                                                                          std::span<FileState* const> files) {
  const auto found = FindRunLocked({request.units, request.large ? kLargeAlignUnits : 1, request.large}, files);
  if (!found) return std::nullopt;
  return Runs{TakeLocked(*found->first, found->second.first, found->second.units)};
}

std::optional<ExtentAllocator::Runs> ExtentAllocator::ReserveSplitLocked(const ReserveRequest& request,
                                                                         std::span<FileState* const> files) {
  // Longest holes first, so that there are as few extents as possible; what is left at the end goes into the hole that
  // fits it best. Large objects first try with pieces that start on and are multiples of 64 KiB, then with any.
  struct Piece {
    FileState* state;
    UnitRun run;
  };
  for (const uint32_t align : {request.large ? kLargeAlignUnits : 1, uint32_t{1}}) {
    std::vector<Piece> holes;
    for (FileState* state : files) {
      state->free.ForEachByLength([&, count = uint32_t{0}, units = uint64_t{0}](const UnitRun& hole) mutable {
        const UnitRun part = FreeRuns::AlignedPart(hole, align);
        if (part.units > 0) holes.push_back({state, part});
        units += part.units;
        return ++count < request.extents_max && units < request.units;
      });
    }
    std::stable_sort(holes.begin(), holes.end(),
                     [](const Piece& a, const Piece& b) { return a.run.units > b.run.units; });
    if (holes.size() > request.extents_max) holes.resize(request.extents_max);

    uint64_t missing = request.units;
    size_t whole = 0;
    while (whole < holes.size() && holes[whole].run.units < missing) missing -= holes[whole++].run.units;
    if (whole == holes.size()) continue;

    Runs extents;
    extents.reserve(whole + 1);
    for (size_t i = 0; i < whole; ++i) {
      extents.push_back(TakeLocked(*holes[i].state, holes[i].run.first, holes[i].run.units));
    }
    const auto last = FindRunLocked({missing, align, request.large}, files);
    TS_CHECK(last.has_value());  // holes[whole] takes it
    extents.push_back(TakeLocked(*last->first, last->second.first, missing));
    return extents;
  }
  return std::nullopt;
}

absl::Status ExtentAllocator::NoSpaceLocked(const ReserveRequest& request, std::span<FileState* const> files) {
  uint64_t free = 0, largest = 0;
  for (const FileState* state : files) {
    free += state->free.units();
    largest = std::max(largest, state->free.Largest().units);
  }
  const std::string where = request.file_id ? absl::StrCat("data file ", *request.file_id)
                                            : absl::StrCat(files.size(), " data files that take data");
  const std::string shape =
      request.allow_split ? absl::StrCat(" in at most ", request.extents_max, " extents") : " in one run";
  return absl::ResourceExhaustedError(absl::StrCat("no space for ", request.units, " units", shape, " in ", where, ": ",
                                                   free, " units are free, the largest run has ", largest));
}

absl::StatusOr<ExtentAllocator::Runs> ExtentAllocator::ReserveLocked(const ReserveRequest& request,
                                                                     std::span<FileState* const> files) {
  if (request.units <= std::numeric_limits<uint32_t>::max()) {
    if (auto run = ReserveOneRunLocked(request, files)) return *std::move(run);
  }
  if (request.allow_split) {
    for (FileState* state : files) {
      if (state->free.units() < request.units) continue;
      if (auto runs = ReserveSplitLocked(request, {&state, 1})) return *std::move(runs);
    }
    if (files.size() > 1) {
      if (auto runs = ReserveSplitLocked(request, files)) return *std::move(runs);
    }
  }
  return NoSpaceLocked(request, files);
}

absl::StatusOr<std::vector<Extent>> ExtentAllocator::Reserve(const ReserveRequest& request) {
  if (request.units == 0) return absl::InvalidArgumentError("cannot reserve 0 units");
  absl::MutexLock lock(&mutex_);
  TS_ASSIGN_OR_RETURN(const std::vector<FileState*> files, CandidatesLocked(request.file_id));
  return ReserveLocked(request, files);
}

absl::StatusOr<Extent> ExtentAllocator::ReserveBetter(const BetterPlace& request) {
  const uint64_t units = request.units;
  if (units == 0) return absl::InvalidArgumentError("cannot reserve 0 units");
  absl::MutexLock lock(&mutex_);
  TS_ASSIGN_OR_RETURN(const std::vector<FileState*> files, CandidatesLocked(request.leaving.file_id));
  FileState& file = *files[0];
  const UnitRun leaving{request.leaving.first_unit, request.leaving.units};
  const UnitRun beyond = request.large ? UnitRun{file.file.first_unit, leaving.first - file.file.first_unit}
                                       : UnitRun{leaving.end(), file.file.end_unit - leaving.end()};
  std::optional<FreeRuns::PlaceInHole> found;
  if (units <= std::numeric_limits<uint32_t>::max()) {
    found = file.free.FindWithin({units, request.large ? kLargeAlignUnits : 1, request.large}, beyond);
  }
  if (!found) return NoSpaceLocked({.units = units, .file_id = file.file.file_id, .allow_split = false}, files);
  const uint64_t before = file.free.UnitsBefore(leaving.first), after = file.free.UnitsAfter(leaving.end());
  const bool at_edge = request.large ? leaving.end() == file.file.end_unit : leaving.first == file.file.first_unit;
  if (!request.neighbour_leaves && !at_edge && (request.large ? after : before) == 0) {
    // Free runs worth more together than now: else a hole here is only changed for a hole there.
    const auto worth = [](uint64_t run_units) { return FreeRuns::WorthOfRun(static_cast<double>(run_units)); };
    const uint64_t hole = found->hole.units, around = before + leaving.units + after;
    const bool joins = found->hole.end() == leaving.first || found->hole.first == leaving.end();
    const double now = worth(before) + worth(after) + (joins ? 0 : worth(hole));
    const double then = joins ? worth(around - units) : worth(around) + worth(hole - units);
    if (then <= now) return absl::ResourceExhaustedError("no place where it would lie better");
  }
  return TakeLocked(file, found->place.first, found->place.units);
}

absl::Status ExtentAllocator::ReserveBatchLocked(std::span<const uint64_t> units_each,
                                                 std::span<FileState* const> files, std::vector<Runs>& out) {
  const uint64_t units = Sum(units_each);
  if (units_each.size() == 1) {
    TS_ASSIGN_OR_RETURN(Runs runs, ReserveLocked({.units = units}, files));
    out.push_back(std::move(runs));
    return absl::OkStatus();
  }
  if (units <= std::numeric_limits<uint32_t>::max()) {
    if (const auto run = ReserveOneRunLocked({.units = units}, files)) {
      Extent rest = run->front();
      for (const uint64_t each : units_each) {
        out.push_back({Extent{rest.file_id, static_cast<uint32_t>(each), rest.first_unit}});
        rest.first_unit += each;
      }
      return absl::OkStatus();
    }
  }
  const size_t half = units_each.size() / 2;
  TS_RETURN_IF_ERROR(ReserveBatchLocked(units_each.first(half), files, out));
  return ReserveBatchLocked(units_each.subspan(half), files, out);
}

absl::StatusOr<std::vector<std::vector<Extent>>> ExtentAllocator::ReserveRun(std::span<const uint64_t> units_each,
                                                                             std::optional<uint32_t> file_id) {
  uint64_t units = 0;
  for (const uint64_t each : units_each) {
    if (each == 0) return absl::InvalidArgumentError("cannot reserve 0 units");
    if (each > std::numeric_limits<uint64_t>::max() - units) {
      return absl::InvalidArgumentError("a batch of more than 2^64 units");
    }
    units += each;
  }
  std::vector<Runs> out;
  if (units_each.empty()) return out;
  absl::MutexLock lock(&mutex_);
  TS_ASSIGN_OR_RETURN(const std::vector<FileState*> files, CandidatesLocked(file_id));
  uint64_t free = 0;
  for (const FileState* state : files) free += state->free.units();
  if (units > free) return NoSpaceLocked({.units = units, .file_id = file_id}, files);
  out.reserve(units_each.size());
  const absl::Status status = ReserveBatchLocked(units_each, files, out);
  if (status.ok()) return out;
  for (const Runs& runs : out) {
    for (const Extent& extent : runs) {
      FileState& state = *FindLocked(extent.file_id);
      state.free.Add({extent.first_unit, extent.units});
      CountLocked(state, extent.units, SpaceState::kReserved, SpaceState::kFree);
    }
  }
  return status;
}

absl::StatusOr<std::vector<Extent>> ExtentAllocator::ReserveFreeIn(uint32_t file_id, uint64_t first_unit,
                                                                   uint64_t end_unit) {
  absl::MutexLock lock(&mutex_);
  FileState* state = FindLocked(file_id);
  if (state == nullptr) return absl::NotFoundError(absl::StrCat("data file ", file_id, " is unknown"));
  std::vector<Extent> extents;
  if (first_unit >= end_unit) return extents;
  for (const UnitRun& run : state->free.Within({first_unit, end_unit - first_unit})) {
    extents.push_back(TakeLocked(*state, run.first, run.units));
  }
  return extents;
}

void ExtentAllocator::Move(std::span<const Extent> extents, SpaceState from, SpaceState to) {
  TS_CHECK(from != SpaceState::kFree);
  if (to == SpaceState::kFree) {
    TS_CHECK(from == SpaceState::kReserved || from == SpaceState::kScratch || from == SpaceState::kParked ||
             from == SpaceState::kLimbo);
  }
  if (TS_MUTATE(leak_reservation) && from == SpaceState::kReserved && to == SpaceState::kFree) return;
  absl::MutexLock lock(&mutex_);
  for (const Extent& extent : extents) {
    FileState* state = FindLocked(extent.file_id);
    TS_CHECK(state != nullptr);
    TS_CHECK(extent.units > 0 && extent.first_unit >= state->file.first_unit &&
             extent.first_unit < state->file.end_unit && extent.units <= state->file.end_unit - extent.first_unit);
    const UnitRun run{extent.first_unit, extent.units};
    if (to == SpaceState::kFree) {
      state->free.Add(run);  // aborts when part of it is free
    } else {
      TS_CHECK(!state->free.Overlaps(run));
    }
    CountLocked(*state, extent.units, from, to);
  }
}

SpaceCounters ExtentAllocator::totals() const {
  absl::MutexLock lock(&mutex_);
  return totals_;
}

uint64_t ExtentAllocator::capacity_units() const {
  absl::MutexLock lock(&mutex_);
  return totals_.total();
}

FileSpace ExtentAllocator::Describe(const FileState& state) {
  return {state.file,          state.counters,    !state.takes_data(),
          state.free.filled(), state.free.size(), state.free.Largest().units};
}

std::vector<FileSpace> ExtentAllocator::files() const {
  absl::MutexLock lock(&mutex_);
  std::vector<FileSpace> all;
  for (const auto& [id, state] : files_) all.push_back(Describe(state));
  return all;
}

absl::StatusOr<FileSpace> ExtentAllocator::file(uint32_t file_id) const {
  absl::MutexLock lock(&mutex_);
  const auto found = files_.find(file_id);
  if (found == files_.end()) return absl::NotFoundError(absl::StrCat("data file ", file_id, " is unknown"));
  return Describe(found->second);
}

std::vector<Extent> ExtentAllocator::FreeExtents() const {
  absl::MutexLock lock(&mutex_);
  std::vector<Extent> extents;
  for (const auto& [id, state] : files_) {
    extents.reserve(extents.size() + state.free.size());
    state.free.ForEach([&, file_id = id](const UnitRun& run) {
      extents.push_back({file_id, static_cast<uint32_t>(run.units), run.first});
    });
  }
  return extents;
}

double ExtentAllocator::FragmentationScore() const {
  absl::MutexLock lock(&mutex_);
  double ideal = 0, actual = 0, worst = 0;
  for (const auto& [id, state] : files_) {
    const double units = static_cast<double>(state.free.units());
    ideal += FreeRuns::WorthOfRun(units);
    actual += state.free.Worth();
    worst += units;
  }
  return ideal <= worst ? 0 : std::clamp((ideal - actual) / (ideal - worst), 0.0, 1.0);
}

}  // namespace tensorshelf
