// Counts the leases on each generation. While a generation has one, its space is not reused (invariant 3 of
// store/FORMAT.md). The table calls nobody: the commit thread asks when it wants to free something.

#ifndef TENSORSHELF_STORE_LEASE_TABLE_H_
#define TENSORSHELF_STORE_LEASE_TABLE_H_

#include <array>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"

namespace tensorshelf {

// Thread-safe. An Acquire must happen under a read guard (store/read_guard.h) or under another lease of the same
// generation: otherwise the space may be gone before the lease is counted.
class LeaseTable {
 public:
  LeaseTable() = default;
  LeaseTable(const LeaseTable&) = delete;
  LeaseTable& operator=(const LeaseTable&) = delete;

  void Acquire(uint64_t generation);
  // One for each Acquire; a release too many aborts.
  void Release(uint64_t generation);

  uint64_t Count(uint64_t generation) const;
  bool Leased(uint64_t generation) const { return Count(generation) > 0; }
  // Leases of all generations, and generations that have any. Each shard is read at another moment.
  uint64_t total() const;
  uint64_t generations() const;

 private:
  static constexpr size_t kShards = 64;
  struct alignas(64) Shard {
    mutable absl::Mutex mutex;  // a leaf
    absl::flat_hash_map<uint64_t, uint64_t> counts ABSL_GUARDED_BY(mutex);
    uint64_t total ABSL_GUARDED_BY(mutex) = 0;
  };
  Shard& ShardOf(uint64_t generation) { return shards_[generation % kShards]; }
  const Shard& ShardOf(uint64_t generation) const { return shards_[generation % kShards]; }

  std::array<Shard, kShards> shards_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_LEASE_TABLE_H_
