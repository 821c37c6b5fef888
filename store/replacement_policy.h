// Which object leaves the memory tier when another needs room. Knows keys and bytes, no memory and no I/O.
//
// S3-FIFO, weighted by bytes: a newcomer goes into a small queue (a tenth of the capacity); only what is used there
// again moves on to the main queue, so a scan of objects that are read once passes through the small queue, or past it
// when it is full of reads under way, and leaves the rest alone. The main queue is a FIFO in which a used member goes
// round again. What left the small queue unused, or was turned away, is remembered by key as long as it would have lain
// in the main queue, and enters that at once when it comes back.
//
// Two more queues for what callers say. A sweep (a list that is longer than the tier, read again and again) would push
// out each object right before it is needed; here a sweep never pushes out its own members, so that a fixed part of the
// list stays, which for a cyclic order is the best that any policy can do. Kept members give way to kept newcomers
// alone. Swept and kept members that nobody has come back to while sixteen capacities of other bytes were read are
// taken as left behind, and go.

#ifndef TENSORSHELF_STORE_REPLACEMENT_POLICY_H_
#define TENSORSHELF_STORE_REPLACEMENT_POLICY_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <optional>

#include "absl/container/flat_hash_set.h"

namespace tensorshelf {

// Thread-compatible, but any number of Touch calls may run beside each other (under a shared lock).
class ReplacementPolicy {
 public:
  enum class Standing : uint8_t {
    kNormal,
    kAhead,  // brought in before anybody reads it: the first read is not a second use
    kSweep,
    kKept,
  };

  struct Member {
    Member(uint64_t key, uint64_t bytes) : key(key), bytes(bytes) {}
    const uint64_t key;
    const uint64_t bytes;
    std::list<Member>* queue = nullptr;
    std::atomic<uint8_t> uses{0};         // since it last went round; kUnread: not even once
    std::atomic<uint64_t> touched_at{0};  // on the clock
  };
  using Place = std::list<Member>::iterator;  // stays valid until Erase or Evict

  explicit ReplacementPolicy(uint64_t capacity_bytes) : capacity_(capacity_bytes) {}
  ReplacementPolicy(const ReplacementPolicy&) = delete;
  ReplacementPolicy& operator=(const ReplacementPolicy&) = delete;

  Place Insert(uint64_t key, uint64_t bytes, Standing standing);
  // It was read.
  void Touch(Place place) const;
  // From now on it has the standing of a kept one.
  void Keep(Place place);
  bool IsKept(Place place) const { return place->queue == &kept_; }
  // It goes next, unless it is kept.
  void Demote(Place place);
  // That many bytes were read by a sweep, or by anybody and were not here. May run beside Touch.
  void Advance(uint64_t bytes) const { clock_.fetch_add(bytes, std::memory_order_relaxed); }

  struct Newcomer {
    uint64_t key = 0;
    Standing standing = Standing::kNormal;
    uint64_t pending_bytes = 0;  // of kNormal newcomers that have room and are not inserted yet
  };
  // The member that is to make room, of those for which `may_go` is true; nullopt: nothing gives way. Looks at a
  // bounded number of members. The member stays in until Evict or Erase.
  std::optional<Place> ChooseVictim(const Newcomer& newcomer, const std::function<bool(uint64_t key)>& may_go);
  void Evict(Place place);  // to make room: the key is remembered
  void Erase(Place place);  // the object is gone
  // There was no room for a newcomer of kNormal.
  void TurnAway(uint64_t key, uint64_t bytes) { Remember(key, bytes); }

  size_t kept_count() const { return kept_.size(); }

 private:
  static constexpr uint8_t kUnread = 0xff;

  using Queue = std::list<Member>;  // newest in front
  using MayGo = std::function<bool(uint64_t key)>;

  static uint8_t UsesOf(Place place);
  uint64_t& BytesOf(const Queue* queue);
  void Move(Place place, Queue& to);
  std::optional<Place> FromSmall(const MayGo& may_go, int& looks);
  std::optional<Place> GoRound(Queue& queue, const MayGo& may_go, int& looks);
  std::optional<Place> FromSweep(const MayGo& may_go, int& looks);
  std::optional<Place> LeftBehind(Queue& queue, const MayGo& may_go);
  void Remember(uint64_t key, uint64_t bytes);

  const uint64_t capacity_;
  Queue small_, main_, sweep_, kept_;
  uint64_t small_bytes_ = 0, main_bytes_ = 0, sweep_bytes_ = 0, kept_bytes_ = 0;
  mutable std::atomic<uint64_t> clock_{0};  // bytes of Advance

  struct Remembered {
    uint64_t key;
    uint64_t bytes;
  };
  std::deque<Remembered> remembered_;  // oldest in front; may hold keys that have come back
  absl::flat_hash_set<uint64_t> remembered_keys_;
  uint64_t remembered_bytes_ = 0;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_REPLACEMENT_POLICY_H_
