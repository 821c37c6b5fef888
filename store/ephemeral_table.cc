#include "store/ephemeral_table.h"

#include <utility>

#include "engine/foundation/status_macros.h"
#include "store/layout.h"

namespace tensorshelf {

absl::Status EphemeralTable::Put(std::span<StagedObject* const> staged,
                                 const std::function<absl::Status(const std::string& name)>& check) {
  absl::MutexLock lock(&mutex_);
  for (const StagedObject* object : staged) TS_RETURN_IF_ERROR(check(object->name));
  for (StagedObject* object : staged) {
    object->space.BecomeState(SpaceState::kScratch);
    auto& entry = names_[object->name];
    if (entry != nullptr) DropLocked(entry);
    entry = object->record;
  }
  size_.store(names_.size(), std::memory_order_relaxed);
  ReclaimLocked();
  return absl::OkStatus();
}

void EphemeralTable::Delete(const std::string& name) {
  if (size() == 0) return;
  absl::MutexLock lock(&mutex_);
  const auto found = names_.find(name);
  if (found == names_.end()) return;
  DropLocked(found->second);
  names_.erase(found);
  size_.store(names_.size(), std::memory_order_relaxed);
  ReclaimLocked();
}

std::shared_ptr<const ObjectRecord> EphemeralTable::FindAndLease(const std::string& name) {
  if (size() == 0) return nullptr;
  absl::MutexLock lock(&mutex_);
  const auto found = names_.find(name);
  if (found == names_.end()) return nullptr;
  leases_->Acquire(found->second->generation, found->second->place_seq);
  return found->second;
}

bool EphemeralTable::Contains(const std::string& name) const {
  if (size() == 0) return false;
  absl::MutexLock lock(&mutex_);
  return names_.contains(name);
}

std::vector<std::pair<std::string, uint64_t>> EphemeralTable::List(const std::string& prefix, const std::string& start,
                                                                   size_t count_max) const {
  std::vector<std::pair<std::string, uint64_t>> list;
  absl::MutexLock lock(&mutex_);
  for (auto at = names_.lower_bound(std::max(prefix, start)); at != names_.end() && list.size() < count_max; ++at) {
    if (at->first.compare(0, prefix.size(), prefix) != 0) break;
    list.emplace_back(at->first, at->second->generation);
  }
  return list;
}

void EphemeralTable::DropLocked(const std::shared_ptr<const ObjectRecord>& record) {
  dropped_.push_back(record);
  if (memory_tier_ != nullptr) memory_tier_->Drop(record->generation);
}

void EphemeralTable::ReclaimLocked() {
  std::erase_if(dropped_, [this](const std::shared_ptr<const ObjectRecord>& record) {
    if (leases_->Leased(record->generation)) return false;
    const std::vector<Extent> extents = ExtentsOf(*record);
    if (!extents.empty()) allocator_->Move(extents, SpaceState::kScratch, SpaceState::kFree);
    return true;
  });
}

void EphemeralTable::Reclaim() {
  absl::MutexLock lock(&mutex_);
  ReclaimLocked();
}

void EphemeralTable::Clear() {
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, record] : names_) dropped_.push_back(record);
  names_.clear();
  size_.store(0, std::memory_order_relaxed);
  for (const auto& record : dropped_) {
    const std::vector<Extent> extents = ExtentsOf(*record);
    if (!extents.empty()) allocator_->Move(extents, SpaceState::kScratch, SpaceState::kFree);
  }
  dropped_.clear();
}

}  // namespace tensorshelf
