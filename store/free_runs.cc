#include "store/free_runs.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <limits>

#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

uint64_t RoundUp(uint64_t value, uint32_t align) { return (value + align - 1) & ~uint64_t{align - 1}; }
uint64_t RoundDown(uint64_t value, uint32_t align) { return value & ~uint64_t{align - 1}; }

// Misaligned holes that a search looks at before it goes to the length that always fits.
constexpr int kMisalignedTries = 64;

}  // namespace

FreeRuns::FreeRuns(std::span<const UnitRun> runs) {
  std::vector<std::pair<uint64_t, uint64_t>> sizes;
  sizes.reserve(runs.size());
  uint64_t end = 0;
  for (const UnitRun& run : runs) {
    TS_CHECK(run.units > 0 && (by_place_.empty() || run.first > end));
    end = run.end();
    by_place_.emplace_hint(by_place_.end(), run.first, run.units);
    sizes.emplace_back(run.units, run.first);
    LengthClass& length_class = classes_[std::bit_width(run.units) - 1];
    ++length_class.runs;
    length_class.units += run.units;
    units_ += run.units;
  }
  std::sort(sizes.begin(), sizes.end());
  for (const auto& size : sizes) above_mark_.insert(above_mark_.end(), size);
}

void FreeRuns::Insert(const UnitRun& run) {
  by_place_.emplace(run.first, run.units);
  SizesOf(run).emplace(run.units, run.first);
  LengthClass& length_class = classes_[std::bit_width(run.units) - 1];
  ++length_class.runs;
  length_class.units += run.units;
  units_ += run.units;
}

void FreeRuns::Erase(const UnitRun& run) {
  TS_CHECK(by_place_.erase(run.first) == 1);
  TS_CHECK(SizesOf(run).erase({run.units, run.first}) == 1);
  LengthClass& length_class = classes_[std::bit_width(run.units) - 1];
  --length_class.runs;
  length_class.units -= run.units;
  units_ -= run.units;
}

bool FreeRuns::Overlaps(const UnitRun& run) const {
  const auto next = by_place_.lower_bound(run.first);
  if (next != by_place_.end() && next->first < run.end()) return true;
  if (next == by_place_.begin()) return false;
  const auto before = std::prev(next);
  return before->first + before->second > run.first;
}

void FreeRuns::Add(const UnitRun& run) {
  TS_CHECK(run.units > 0 && !Overlaps(run));
  UnitRun joined = run;
  const auto next = by_place_.lower_bound(run.first);
  std::optional<UnitRun> after;
  if (next != by_place_.end() && next->first == run.end()) after = UnitRun{next->first, next->second};
  if (next != by_place_.begin()) {
    const auto before = std::prev(next);
    if (before->first + before->second == run.first) {
      const UnitRun left{before->first, before->second};
      Erase(left);
      joined = {left.first, left.units + joined.units};
    }
  }
  if (after) {
    Erase(*after);
    joined.units += after->units;
  }
  Insert(joined);
}

void FreeRuns::Take(const UnitRun& run) {
  TS_CHECK(run.units > 0);
  auto found = by_place_.upper_bound(run.first);
  TS_CHECK(found != by_place_.begin());
  --found;
  const UnitRun hole{found->first, found->second};
  TS_CHECK(hole.end() >= run.end());
  Erase(hole);
  if (hole.first < run.first) Insert({hole.first, run.first - hole.first});
  if (run.end() < hole.end()) Insert({run.end(), hole.end() - run.end()});
}

std::vector<UnitRun> FreeRuns::Within(const UnitRun& range) const {
  std::vector<UnitRun> parts;
  auto at = by_place_.upper_bound(range.first);
  if (at != by_place_.begin()) --at;
  for (; at != by_place_.end() && at->first < range.end(); ++at) {
    const uint64_t first = std::max(at->first, range.first);
    const uint64_t end = std::min(at->first + at->second, range.end());
    if (first < end) parts.push_back({first, end - first});
  }
  return parts;
}

std::optional<UnitRun> FreeRuns::StraddlesMark() const {
  auto found = by_place_.lower_bound(filled_);
  if (found == by_place_.begin()) return std::nullopt;
  --found;
  const UnitRun run{found->first, found->second};
  if (run.end() <= filled_) return std::nullopt;
  return run;
}

void FreeRuns::SetFilled(uint64_t unit) {
  if (unit == filled_) return;
  // A run changes sides when its end lies between the two marks.
  const bool rises = unit > filled_;
  const uint64_t low = std::min(unit, filled_), high = std::max(unit, filled_);
  BySize& from = rises ? above_mark_ : below_mark_;
  BySize& to = rises ? below_mark_ : above_mark_;
  auto at = by_place_.lower_bound(low);
  if (at != by_place_.begin()) --at;
  for (; at != by_place_.end() && at->first < high; ++at) {
    const uint64_t end = at->first + at->second;
    if (end <= low || end > high) continue;
    TS_CHECK(from.erase({at->second, at->first}) == 1);
    to.emplace(at->second, at->first);
  }
  filled_ = unit;
}

std::optional<UnitRun> FreeRuns::Cut(const UnitRun& hole, const Fit& fit) {
  if (hole.units < fit.units) return std::nullopt;
  const uint64_t first = fit.low_end ? RoundUp(hole.first, fit.align) : RoundDown(hole.end() - fit.units, fit.align);
  if (first < hole.first || first + fit.units > hole.end()) return std::nullopt;
  return UnitRun{first, fit.units};
}

std::optional<UnitRun> FreeRuns::FindIn(const BySize& sizes, const Fit& fit) {
  // Best candidates may be misaligned: those are passed over. A hole of units + align - 1 always fits, so after some
  // tries the search goes there; only when there is none does it look through the rest of the lengths between.
  const uint64_t sure = fit.units + fit.align - 1;
  const auto begin = sizes.lower_bound({fit.units, 0});
  auto at = begin;
  for (int tries = 0; at != sizes.end() && at->first < sure && tries < kMisalignedTries; ++at, ++tries) {
    if (const auto run = Cut({at->second, at->first}, fit)) return run;
  }
  auto large = sizes.lower_bound({sure, 0});
  if (large != sizes.end()) {
    // Of equal holes the lowest for runs cut from the low end, the highest for the others.
    if (!fit.low_end) large = std::prev(sizes.upper_bound({large->first, std::numeric_limits<uint64_t>::max()}));
    return Cut({large->second, large->first}, fit);
  }
  for (; at != sizes.end(); ++at) {
    if (const auto run = Cut({at->second, at->first}, fit)) return run;
  }
  return std::nullopt;
}

std::optional<UnitRun> FreeRuns::FindBest(const Fit& fit) const {
  if (const auto run = FindIn(below_mark_, fit)) return run;
  if (const auto across = StraddlesMark()) {
    if (const auto run = Cut({across->first, filled_ - across->first}, fit)) return run;
  }
  return FindIn(above_mark_, fit);
}

std::optional<FreeRuns::PlaceInHole> FreeRuns::FindWithin(const Fit& fit, const UnitRun& range) const {
  if (by_place_.empty() || by_place_.begin()->first >= range.end()) return std::nullopt;
  if (const auto last = std::prev(by_place_.end()); last->first + last->second <= range.first) return std::nullopt;
  std::optional<PlaceInHole> best;
  for (const BySize* sizes : {&below_mark_, &above_mark_}) {
    for (auto at = sizes->lower_bound({fit.units, 0}); at != sizes->end(); ++at) {
      if (best && at->first >= best->hole.units) break;
      const UnitRun hole{at->second, at->first};
      const uint64_t first = std::max(hole.first, range.first), end = std::min(hole.end(), range.end());
      if (first >= end) continue;
      const auto place = Cut({first, end - first}, fit);
      if (!place) continue;
      best = PlaceInHole{*place, hole};
      break;
    }
  }
  return best;
}

uint64_t FreeRuns::UnitsBefore(uint64_t unit) const {
  const auto next = by_place_.lower_bound(unit);
  if (next == by_place_.begin()) return 0;
  const auto last = std::prev(next);
  return last->first + last->second == unit ? last->second : 0;
}

uint64_t FreeRuns::UnitsAfter(uint64_t unit) const {
  const auto found = by_place_.find(unit);
  return found == by_place_.end() ? 0 : found->second;
}

UnitRun FreeRuns::Largest() const {
  UnitRun largest;
  ForEachByLength([&](const UnitRun& run) {
    largest = run;
    return false;
  });
  return largest;
}

UnitRun FreeRuns::AlignedPart(const UnitRun& hole, uint32_t align) {
  const uint64_t first = RoundUp(hole.first, align);
  const uint64_t end = RoundDown(hole.end(), align);
  return first < end ? UnitRun{first, end - first} : UnitRun{};
}

double FreeRuns::WorthOfRun(double units) {
  // 1.1 per doubling: units * 1.1 ^ log2(units) = units ^ (1 + log2(1.1)).
  return units > 0 ? std::pow(units, 1 + std::log2(1.1)) : 0;
}

double FreeRuns::Worth() const {
  double worth = 0;
  for (const LengthClass& length_class : classes_) {
    if (length_class.runs == 0) continue;
    const double runs = static_cast<double>(length_class.runs);
    worth += runs * WorthOfRun(static_cast<double>(length_class.units) / runs);
  }
  return worth;
}

}  // namespace tensorshelf
