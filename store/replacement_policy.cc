#include "store/replacement_policy.h"

#include <algorithm>

namespace tensorshelf {
namespace {

constexpr uint64_t kSmallShare = 10;  // a tenth
constexpr uint8_t kUsesMax = 3;       // how many rounds of the main queue a member can earn
constexpr uint64_t kHorizon = 16;     // capacities; a longer sweep would find less than a sixteenth here anyway
constexpr int kLooksMax = 4096;       // members in one choice: some tens of microseconds under the tier's lock
constexpr int kLeftBehindLooksMax = 8;
constexpr size_t kRememberedMax = size_t{1} << 18;  // keys

}  // namespace

uint8_t ReplacementPolicy::UsesOf(Place place) {
  const uint8_t uses = place->uses.load(std::memory_order_relaxed);
  return uses == kUnread ? 0 : uses;
}

uint64_t& ReplacementPolicy::BytesOf(const Queue* queue) {
  if (queue == &small_) return small_bytes_;
  if (queue == &main_) return main_bytes_;
  return queue == &sweep_ ? sweep_bytes_ : kept_bytes_;
}

ReplacementPolicy::Place ReplacementPolicy::Insert(uint64_t key, uint64_t bytes, Standing standing) {
  Queue* queue = &small_;
  if (standing == Standing::kKept) {
    queue = &kept_;
  } else if (standing == Standing::kSweep) {
    queue = &sweep_;
  } else if (remembered_keys_.erase(key) > 0 || standing == Standing::kAhead) {
    queue = &main_;
  }
  queue->emplace_front(key, bytes);
  const Place place = queue->begin();
  place->queue = queue;
  if (standing == Standing::kAhead) place->uses.store(kUnread, std::memory_order_relaxed);
  place->touched_at.store(clock_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  BytesOf(queue) += bytes;
  return place;
}

void ReplacementPolicy::Touch(Place place) const {
  // Relaxed, and a lost update among racing readers is harmless: these numbers only steer.
  const uint8_t uses = place->uses.load(std::memory_order_relaxed);
  if (uses == kUnread) {
    place->uses.store(0, std::memory_order_relaxed);
  } else if (uses < kUsesMax) {
    place->uses.store(uses + 1, std::memory_order_relaxed);
  }
  place->touched_at.store(clock_.load(std::memory_order_relaxed), std::memory_order_relaxed);
}

void ReplacementPolicy::Move(Place place, Queue& to) {
  Queue& from = *place->queue;
  BytesOf(&from) -= place->bytes;
  BytesOf(&to) += place->bytes;
  to.splice(to.begin(), from, place);
  place->queue = &to;
}

void ReplacementPolicy::Keep(Place place) { Move(place, kept_); }

void ReplacementPolicy::Demote(Place place) {
  if (IsKept(place)) return;
  Move(place, small_);
  small_.splice(small_.end(), small_, place);
  place->uses.store(0, std::memory_order_relaxed);
}

// Used members move on to the main queue, those that may not go stay at the young end.
std::optional<ReplacementPolicy::Place> ReplacementPolicy::FromSmall(const MayGo& may_go, int& looks) {
  for (size_t left = small_.size(); left > 0 && looks > 0; --left, --looks) {
    const Place place = std::prev(small_.end());
    if (UsesOf(place) > 0) {
      place->uses.store(0, std::memory_order_relaxed);
      Move(place, main_);
    } else if (may_go(place->key)) {
      return place;
    } else {
      Move(place, small_);
    }
  }
  return std::nullopt;
}

std::optional<ReplacementPolicy::Place> ReplacementPolicy::GoRound(Queue& queue, const MayGo& may_go, int& looks) {
  for (size_t left = queue.size() * (kUsesMax + 1); left > 0 && looks > 0; --left, --looks) {
    const Place place = std::prev(queue.end());
    const uint8_t uses = UsesOf(place);
    if (uses == 0 && may_go(place->key)) return place;
    if (uses > 0) place->uses.store(uses - 1, std::memory_order_relaxed);
    Move(place, queue);
  }
  return std::nullopt;
}

// Of a cyclic order any member is as good as another, but for the one that is needed next.
std::optional<ReplacementPolicy::Place> ReplacementPolicy::FromSweep(const MayGo& may_go, int& looks) {
  for (Place place = sweep_.begin(); place != sweep_.end() && looks > 0; ++place, --looks) {
    if (may_go(place->key)) return place;
  }
  return std::nullopt;
}

std::optional<ReplacementPolicy::Place> ReplacementPolicy::LeftBehind(Queue& queue, const MayGo& may_go) {
  const uint64_t now = clock_.load(std::memory_order_relaxed);
  for (int looks = 0; looks < kLeftBehindLooksMax && !queue.empty(); ++looks) {
    const Place place = std::prev(queue.end());
    const uint64_t touched = place->touched_at.load(std::memory_order_relaxed);
    if (now - touched > kHorizon * capacity_ && may_go(place->key)) return place;
    Move(place, queue);  // another one is looked at the next time
  }
  return std::nullopt;
}

std::optional<ReplacementPolicy::Place> ReplacementPolicy::ChooseVictim(const Newcomer& newcomer, const MayGo& may_go) {
  int looks = kLooksMax;
  std::optional<Place> victim;
  if (newcomer.standing == Standing::kSweep) {
    victim = LeftBehind(sweep_, may_go);
    if (!victim.has_value()) victim = FromSmall(may_go, looks);
    if (!victim.has_value()) victim = GoRound(main_, may_go, looks);
    if (!victim.has_value()) victim = LeftBehind(kept_, may_go);
    return victim;
  }
  const auto small_is_full = [&] { return small_bytes_ + newcomer.pending_bytes >= capacity_ / kSmallShare; };
  if (small_is_full()) victim = FromSmall(may_go, looks);
  // A sweep may fill what nobody else uses; others take it back down to one half.
  if (!victim.has_value() && sweep_bytes_ > capacity_ / 2) victim = FromSweep(may_go, looks);
  if (victim.has_value()) return victim;
  // A scan's reads under way fill the small queue's share: the main queue is not for those who come once.
  const bool is_new = newcomer.standing == Standing::kNormal && !remembered_keys_.contains(newcomer.key);
  if (is_new && small_is_full()) return LeftBehind(kept_, may_go);
  victim = GoRound(main_, may_go, looks);
  if (!victim.has_value()) victim = FromSmall(may_go, looks);
  if (!victim.has_value()) victim = FromSweep(may_go, looks);
  if (!victim.has_value()) victim = LeftBehind(kept_, may_go);
  if (!victim.has_value() && newcomer.standing == Standing::kKept) victim = GoRound(kept_, may_go, looks);
  return victim;
}

void ReplacementPolicy::Evict(Place place) {
  if (place->queue == &small_) Remember(place->key, place->bytes);
  Erase(place);
}

void ReplacementPolicy::Erase(Place place) {
  Queue& queue = *place->queue;
  BytesOf(&queue) -= place->bytes;
  queue.erase(place);
}

void ReplacementPolicy::Remember(uint64_t key, uint64_t bytes) {
  if (!remembered_keys_.insert(key).second) return;
  remembered_.push_back({key, bytes});
  remembered_bytes_ += bytes;
  while (!remembered_.empty() && (remembered_bytes_ > capacity_ || remembered_.size() > kRememberedMax)) {
    remembered_keys_.erase(remembered_.front().key);
    remembered_bytes_ -= remembered_.front().bytes;
    remembered_.pop_front();
  }
}

}  // namespace tensorshelf
