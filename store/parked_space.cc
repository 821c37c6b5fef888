#include "store/parked_space.h"

#include <algorithm>
#include <utility>

#include "engine/foundation/mutation.h"

namespace tensorshelf {

void ParkedSpace::Park(uint64_t generation, uint32_t place_seq, uint64_t commit, std::vector<Extent> extents) {
  if (extents.empty()) return;
  allocator_->Move(extents, SpaceState::kLive, SpaceState::kParked);
  absl::MutexLock lock(&mutex_);
  items_.push_back({generation, place_seq, commit, std::move(extents)});
  // Kept only by a commit that drops the object, not by one that moves it.
  if (const auto kept = sums_.find(generation); kept != sums_.end()) kept->second.dropped = true;
}

void ParkedSpace::KeepSums(uint64_t generation, std::vector<uint64_t> sums) {
  absl::MutexLock lock(&mutex_);
  sums_[generation] = {.sums = std::move(sums)};
}

bool ParkedSpace::ReadSums(uint64_t generation, uint64_t first, std::span<uint64_t> out) const {
  absl::MutexLock lock(&mutex_);
  const auto kept = sums_.find(generation);
  if (kept == sums_.end()) return false;
  const std::vector<uint64_t>& sums = kept->second.sums;
  if (first > sums.size() || out.size() > sums.size() - first) return false;
  std::copy_n(sums.begin() + static_cast<ptrdiff_t>(first), out.size(), out.begin());
  return true;
}

void ParkedSpace::PruneSumsLocked() {
  if (sums_.empty()) return;
  absl::flat_hash_set<uint64_t> parked;
  for (const Item& item : items_) parked.insert(item.generation);
  absl::erase_if(sums_, [&](const auto& kept) { return kept.second.dropped && !parked.contains(kept.first); });
}

void ParkedSpace::MarkUnreadable(uint64_t generation) {
  absl::MutexLock lock(&mutex_);
  unreadable_.insert(generation);
}

void ParkedSpace::FreeLocked(const Item& item) {
  if (unreadable_.erase(item.generation) > 0) {
    allocator_->Move(item.extents, SpaceState::kParked, SpaceState::kBad);
    bad_units_.insert(bad_units_.end(), item.extents.begin(), item.extents.end());
  } else {
    allocator_->Move(item.extents, SpaceState::kParked, SpaceState::kFree);
  }
}

void ParkedSpace::Reclaim() {
  absl::MutexLock lock(&mutex_);
  if (items_.empty() || TS_MUTATE(never_free)) return;
  // The guards first, then the leases: a reader that left its guard before this scan has its lease counted.
  const uint64_t oldest = guards_->OldestActive();
  std::erase_if(items_, [&](const Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (oldest < item.commit && !TS_MUTATE(free_while_guarded)) return false;
    if (leases_->Leased(item.generation, item.place_seq) && !TS_MUTATE(free_while_leased)) return false;
    FreeLocked(item);
    return true;
  });
  PruneSumsLocked();
}

void ParkedSpace::ReclaimAll() {
  absl::MutexLock lock(&mutex_);
  for (const Item& item : items_) FreeLocked(item);
  items_.clear();
  sums_.clear();
}

std::vector<Extent> ParkedSpace::TakeBadUnits() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(bad_units_, {});
}

}  // namespace tensorshelf
