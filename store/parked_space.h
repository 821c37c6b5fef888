// Space of dropped objects on its way back to free: parked until nobody can still be reading it. With it the checksums
// that lay in rows of their own: the commit that drops an object takes its rows away, and who still reads it compares.

#ifndef TENSORSHELF_STORE_PARKED_SPACE_H_
#define TENSORSHELF_STORE_PARKED_SPACE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/synchronization/mutex.h"
#include "store/extent_allocator.h"
#include "store/lease_table.h"
#include "store/read_guard.h"

namespace tensorshelf {

// Thread-safe.
class ParkedSpace {
 public:
  ParkedSpace(ExtentAllocator* allocator, LeaseTable* leases, ReadGuards* guards)
      : allocator_(allocator), leases_(leases), guards_(guards) {}

  // Commit `commit` dropped the object, or moved it away from these extents of the place `place_seq`; they are kParked
  // from now on. Call after `commit` was published.
  void Park(uint64_t generation, uint32_t place_seq, uint64_t commit, std::vector<Extent> extents);

  // The sums of an object that the next commit drops, all of them. Call before that commit is written: from then on the
  // rows may be gone.
  void KeepSums(uint64_t generation, std::vector<uint64_t> sums);
  // Copies out.size() kept sums from the one of block `first` on; false: they are not kept.
  bool ReadSums(uint64_t generation, uint64_t first, std::span<uint64_t> out) const;

  // A read of this object failed on the device: when it is dropped, its units become bad instead of free.
  void MarkUnreadable(uint64_t generation);

  // parked -> free for whatever no older guard or view and no lease holds back any more.
  void Reclaim();
  // At close, when no read is possible any more: all of it.
  void ReclaimAll();

  // Units that became bad since the last call; the commit thread records them.
  std::vector<Extent> TakeBadUnits();

 private:
  struct Item {
    uint64_t generation = 0;
    uint32_t place_seq = 0;
    uint64_t commit = 0;
    std::vector<Extent> extents;
  };
  struct Kept {
    std::vector<uint64_t> sums;
    bool dropped = false;  // the commit was published: they go with the last item of their generation
  };
  void FreeLocked(const Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PruneSumsLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ExtentAllocator* const allocator_;
  LeaseTable* const leases_;
  ReadGuards* const guards_;
  mutable absl::Mutex mutex_;  // before the allocator's, the lease table's and the guards'
  std::vector<Item> items_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<uint64_t, Kept> sums_ ABSL_GUARDED_BY(mutex_);  // by generation
  absl::flat_hash_set<uint64_t> unreadable_ ABSL_GUARDED_BY(mutex_);
  std::vector<Extent> bad_units_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_PARKED_SPACE_H_
