// Space of dropped objects on its way back to free: parked until nobody can still be reading it.

#ifndef TENSORSHELF_STORE_PARKED_SPACE_H_
#define TENSORSHELF_STORE_PARKED_SPACE_H_

#include <cstdint>
#include <vector>

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
  void FreeLocked(const Item& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ExtentAllocator* const allocator_;
  LeaseTable* const leases_;
  ReadGuards* const guards_;
  absl::Mutex mutex_;  // before the allocator's, the lease table's and the guards'
  std::vector<Item> items_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_set<uint64_t> unreadable_ ABSL_GUARDED_BY(mutex_);
  std::vector<Extent> bad_units_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_PARKED_SPACE_H_
