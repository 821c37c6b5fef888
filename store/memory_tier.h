// The memory tier: hot objects stay in memory, and a read of one is a copy or a lease, without I/O.
//
// Why a stale object cannot be served. An entry is found by generation *and* fingerprint, both taken from the record
// that the reader's own lookup in the index gave it. A generation is given to one version of one object and never
// again, its bytes never change (copy on write), and the fingerprint covers dtype, shape and every byte. So an entry is
// either what the record describes or is not found, whatever was replaced, deleted, renamed, cloned, rolled back,
// compacted or committed by another process meanwhile; names play no part here. Telling the tier of dropped generations
// (Drop) saves memory and is not needed for correctness.
//
// Why wrong bytes cannot come in. An entry is filled by a verified read or by a copy that is compared with the put's
// sums, in memory that nobody else can see, and becomes findable only after that. A hit is not summed again.
//
// Why memory in use is not reused. An entry's memory goes back to the arena when the last reference to the entry dies:
// the tier's own, a reader's that copies, a lease's. Eviction drops the tier's reference, and chooses entries that
// nobody else holds.
//
// Single flight: the first reader that misses an object fills it, others that come meanwhile wait for that. A reader
// finishes everything it fills before it waits for anybody, so readers of many objects cannot wait for each other.

#ifndef TENSORSHELF_STORE_MEMORY_TIER_H_
#define TENSORSHELF_STORE_MEMORY_TIER_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "index/record.h"
#include "store/memory_lease.h"
#include "store/replacement_policy.h"
#include "store/tier_arena.h"

namespace tensorshelf {

// One object's bytes in memory. Written by whoever fills it, before anybody else can see it; constant afterwards.
class TierEntry {
 public:
  TierEntry(std::shared_ptr<TierArena> arena, const UnitRun& run, const ObjectRecord& record);
  TierEntry(const TierEntry&) = delete;
  TierEntry& operator=(const TierEntry&) = delete;
  ~TierEntry();  // in a forked child nothing is given back

  bool Holds(const ObjectRecord& record) const {
    return generation == record.generation && fingerprint == record.fingerprint && size == record.logical_bytes;
  }
  std::span<std::byte> bytes() const { return {arena->data(run), size}; }

  const std::shared_ptr<TierArena> arena;
  const UnitRun run;
  const uint64_t generation;
  const std::array<uint8_t, 16> fingerprint;
  const uint64_t size;  // bytes
};

// The leases that users hold, for stats. Thread-safe; lives as long as the last lease.
class LeaseBook {
 public:
  uint64_t Add(const TierEntry* entry);  // the number to Remove
  void Remove(uint64_t number, const TierEntry* entry);
  void ReadInto(MemoryTierStats& stats) const;

 private:
  mutable absl::Mutex mutex_;  // a leaf
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;                             // of leased entries, each once
  absl::btree_map<uint64_t, absl::Time> granted_ ABSL_GUARDED_BY(mutex_);  // by number, so oldest first
  absl::flat_hash_map<const TierEntry*, uint64_t> leases_of_ ABSL_GUARDED_BY(mutex_);
};

// Thread-safe.
class MemoryTier {
 public:
  struct Options {
    uint64_t capacity = 0;  // bytes, not 0
    bool page_locked = true;
    MemoryHooks hooks = {};
  };
  static absl::StatusOr<std::unique_ptr<MemoryTier>> Create(const Options& options);
  ~MemoryTier();  // leases and what they hold live on

  // What one reader waits for and another one fills.
  struct Flight {
    uint64_t generation = 0;
    std::atomic<bool> dropped{false};  // the object is gone: what comes is not kept
    std::shared_ptr<TierEntry> entry;  // set before `done` when the fill succeeded
    absl::Notification done;
  };

  // What to do about one object. Movable. A fill that dies without Publish has failed: nothing is left of it.
  class Claim {
   public:
    enum class Role : uint8_t {
      kHit,     // entry() holds the bytes
      kFill,    // read into entry()->bytes(), verified, then Publish
      kJoin,    // finish your own fills, then Join
      kBypass,  // read past the tier
    };
    Claim() = default;
    Claim(Claim&& other) noexcept;
    Claim& operator=(Claim&& other) noexcept;
    ~Claim();

    Role role() const { return role_; }
    const std::shared_ptr<TierEntry>& entry() const { return entry_; }

   private:
    friend class MemoryTier;
    void Abandon();
    uint64_t pending_bytes() const;

    Role role_ = Role::kBypass;
    MemoryTier* tier_ = nullptr;  // of a fill
    std::shared_ptr<TierEntry> entry_;
    std::shared_ptr<Flight> flight_;
    ReplacementPolicy::Standing standing_ = ReplacementPolicy::Standing::kNormal;
  };

  struct Wish {
    const ObjectRecord* record = nullptr;
    bool whole = true;  // a part of an object is served when the object is there, and does not bring it in
  };
  struct Use {
    CacheHint cache = CacheHint::kNone;
    AccessOrder order = AccessOrder::kAny;
    bool ahead = false;  // nobody reads it yet
  };
  // One claim for each wish, in order. An object that is wished twice is filled once: its second claim is a kJoin.
  std::vector<Claim> ClaimAll(std::span<const Wish> wishes, const Use& use);
  // The fill is complete and verified.
  void Publish(Claim& fill);
  // Waits; null: the other fill failed, so read past the tier.
  std::shared_ptr<TierEntry> Join(const Claim& join);

  // Room for an object that is being put, to be filled and published once it is committed; a kBypass if there is none.
  Claim ClaimForPut(const ObjectRecord& record, CacheHint cache);

  // The object has no name any more.
  void Drop(uint64_t generation);

  MemoryLease Grant(std::shared_ptr<TierEntry> entry);

  // At close: everything that nobody holds goes, and memory with it. Returns what leases hold still.
  MemoryTierStats Retire();

  MemoryTierStats stats() const;

 private:
  struct Resident {
    std::shared_ptr<TierEntry> entry;
    ReplacementPolicy::Place place;
  };

  explicit MemoryTier(std::shared_ptr<TierArena> arena);
  const Resident* FindLocked(const ObjectRecord& record) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Claim HitLocked(const Resident& resident, const Use& use) ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  Claim MissLocked(const Wish& wish, const Use& use) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<TierEntry> MakeRoomLocked(const ObjectRecord& record, ReplacementPolicy::Standing standing,
                                            bool may_evict) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EraseLocked(uint64_t generation, bool evicted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndFlight(const std::shared_ptr<Flight>& flight, uint64_t pending_bytes);

  const std::shared_ptr<TierArena> arena_;
  const std::shared_ptr<LeaseBook> book_;

  // Counters: relaxed, each a number of its own.
  std::atomic<uint64_t> hits_{0}, misses_{0}, hit_bytes_{0}, joined_{0}, admissions_{0}, rejected_{0}, evictions_{0};

  mutable absl::Mutex mutex_;  // before the arena's. Hits share it; the policy's Touch is made for that
  absl::flat_hash_map<uint64_t, Resident> residents_ ABSL_GUARDED_BY(mutex_);  // by generation
  absl::flat_hash_map<uint64_t, std::shared_ptr<Flight>> flights_ ABSL_GUARDED_BY(mutex_);
  uint64_t pending_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of fills of kNormal standing
  ReplacementPolicy policy_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_MEMORY_TIER_H_
