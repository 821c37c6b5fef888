// Counts the leases on each generation, and at which of its places: a moved object is leased at the place that its
// reader found. While there is one, that space is not reused (invariant 3 of store/FORMAT.md). The table calls nobody:
// the commit thread asks when it wants to free something.

#ifndef TENSORSHELF_STORE_LEASE_TABLE_H_
#define TENSORSHELF_STORE_LEASE_TABLE_H_

#include <array>
#include <cstdint>
#include <limits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/synchronization/mutex.h"

namespace tensorshelf {

// Thread-safe. An Acquire must happen under a read guard (store/read_guard.h) or under another lease of the same
// generation: otherwise the space may be gone before the lease is counted.
class LeaseTable {
 public:
  LeaseTable() = default;
  LeaseTable(const LeaseTable&) = delete;
  LeaseTable& operator=(const LeaseTable&) = delete;

  // `place_seq`: of the record that the reader found.
  void Acquire(uint64_t generation, uint32_t place_seq = 0);
  // One for each Acquire; a release too many aborts.
  void Release(uint64_t generation, uint32_t place_seq = 0);

  uint64_t Count(uint64_t generation) const;
  // At `place_max` or at a place before it: a place keeps extents of those before it, so a lease on an older place
  // holds them too.
  bool Leased(uint64_t generation, uint32_t place_max = std::numeric_limits<uint32_t>::max()) const;
  // Leases of all generations, and places of generations that have any. Each shard is read at another moment.
  uint64_t total() const;
  uint64_t generations() const;

 private:
  static constexpr size_t kShards = 64;
  using Key = std::pair<uint64_t, uint32_t>;  // generation, place_seq
  struct alignas(64) Shard {
    mutable absl::Mutex mutex;  // a leaf
    absl::btree_map<Key, uint64_t> counts ABSL_GUARDED_BY(mutex);
    uint64_t total ABSL_GUARDED_BY(mutex) = 0;
  };
  Shard& ShardOf(uint64_t generation) { return shards_[generation % kShards]; }
  const Shard& ShardOf(uint64_t generation) const { return shards_[generation % kShards]; }

  std::array<Shard, kShards> shards_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_LEASE_TABLE_H_
