#include "store/tier_arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/process_id.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {

absl::StatusOr<std::shared_ptr<TierArena>> TierArena::Create(uint64_t bytes, bool page_locked,
                                                             const MemoryHooks& hooks) {
  const uint64_t units = bytes / kUnit;
  if (units == 0) return absl::InvalidArgumentError(absl::StrCat("a memory tier of ", bytes, " bytes"));
  // Not MADV_DONTFORK: a forked child may hold leases, and reads what was there when it was forked.
  TS_ASSIGN_OR_RETURN(MappedRegion region,
                      MappedRegion::Map(units * kUnit, {.huge_pages = true, .page_locked = page_locked}));
  if (hooks.notice && page_locked && !region.page_locked()) {
    hooks.notice(
        absl::StrCat("the memory tier of ", units * kUnit, " bytes is not page-locked: RLIMIT_MEMLOCK is too low"));
  }
  if (hooks.notice && !region.huge_pages()) {
    hooks.notice("the memory tier is not on huge pages: it is below 2 MiB or transparent huge pages are off");
  }
  if (hooks.mapped) hooks.mapped(region.data(), region.size());
  return std::shared_ptr<TierArena>(new TierArena(std::move(region), units, hooks));
}

TierArena::TierArena(MappedRegion region, uint64_t units, const MemoryHooks& hooks)
    : region_(std::move(region)), units_(units), hooks_(hooks), process_(ProcessId()) {
  absl::MutexLock lock(&mutex_);
  free_.Add({0, units_});
}

TierArena::~TierArena() {
  if (!forked() && hooks_.unmapping) hooks_.unmapping(region_.data(), region_.size());
}

bool TierArena::forked() const { return ProcessId() != process_; }

std::byte* TierArena::data(const UnitRun& run) const { return region_.data() + run.first * kUnit; }

uint64_t TierArena::held_bytes() const {
  absl::MutexLock lock(&mutex_);
  return (units_ - free_.units()) * kUnit;
}

std::optional<UnitRun> TierArena::Take(uint64_t units) {
  absl::MutexLock lock(&mutex_);
  if (retired_) return std::nullopt;
  const std::optional<UnitRun> run = free_.FindBest({.units = units, .low_end = true});
  if (!run.has_value()) return std::nullopt;
  free_.Take(*run);
  free_.SetFilled(std::max(free_.filled(), run->end()));
  return run;
}

void TierArena::GiveBack(const UnitRun& run) {
  absl::MutexLock lock(&mutex_);
  free_.Add(run);
  if (retired_) ReturnToSystem(run);
}

void TierArena::Retire() {
  absl::MutexLock lock(&mutex_);
  if (std::exchange(retired_, true)) return;
  // Locked pages cannot be given up. Where this fails the memory goes with the last lease instead.
  if (region_.page_locked() && ::munlock(region_.data(), region_.size()) != 0) return;
  free_.ForEach([this](const UnitRun& run) { ReturnToSystem(run); });
}

void TierArena::ReturnToSystem(const UnitRun& run) const {
  // A failure (locked pages) leaves the memory with the region, which the last holder unmaps.
  const int failed = ::madvise(data(run), run.units * kUnit, MADV_DONTNEED);
  static_cast<void>(failed);
}

}  // namespace tensorshelf
