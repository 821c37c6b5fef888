#include "store/read_guard.h"

#include <functional>
#include <thread>

#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

// Where a thread begins to look for a slot: the same place every time, so that its slot stays in its cache.
size_t HomeSlot() {
  const uint64_t id = std::hash<std::thread::id>{}(std::this_thread::get_id());
  return static_cast<size_t>((id * 0x9e3779b97f4a7c15u) >> 56) % ReadGuards::kSlots;
}

}  // namespace

ReadGuards::ReadGuards() = default;

std::atomic<uint64_t>* ReadGuards::TakeSlot(uint64_t commit) {
  for (size_t at = HomeSlot(), tried = 0; tried < kSlots; at = (at + 1) % kSlots, ++tried) {
    uint64_t idle = kNobody;
    // Taking the slot and storing the commit is one step: the slot never holds a number that is not protected.
    if (slots_[at].commit.compare_exchange_strong(idle, commit, std::memory_order_seq_cst)) return &slots_[at].commit;
  }
  return nullptr;
}

void ReadGuards::Guard::Exit() {
  if (slot_ == nullptr) return;
  // Release: all that the reader read comes before. The scan that sees kNobody acquires it.
  slot_->store(kNobody, std::memory_order_release);
  slot_ = nullptr;
}

void ReadGuards::AddView(uint64_t commit) {
  absl::MutexLock lock(&mutex_);
  ++views_[commit];
}

void ReadGuards::LeaveView(uint64_t commit) {
  absl::MutexLock lock(&mutex_);
  const auto found = views_.find(commit);
  TS_CHECK(found != views_.end());
  if (--found->second == 0) views_.erase(found);
}

uint64_t ReadGuards::OldestActive() const {
  uint64_t oldest = kNobody;
  for (const Slot& slot : slots_) {
    const uint64_t commit = slot.commit.load(std::memory_order_seq_cst);
    if (commit < oldest) oldest = commit;
  }
  absl::MutexLock lock(&mutex_);
  if (!views_.empty() && views_.begin()->first < oldest) oldest = views_.begin()->first;
  return oldest;
}

uint64_t ReadGuards::active_guards() const {
  uint64_t count = 0;
  for (const Slot& slot : slots_) count += slot.commit.load(std::memory_order_seq_cst) != kNobody;
  return count;
}

uint64_t ReadGuards::active_views() const {
  absl::MutexLock lock(&mutex_);
  uint64_t count = 0;
  for (const auto& [commit, views] : views_) count += views;
  return count;
}

}  // namespace tensorshelf
