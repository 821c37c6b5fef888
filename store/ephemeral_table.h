// Names that live in memory alone. Their extents are scratch: no index row, no sync, free at the next open.

#ifndef TENSORSHELF_STORE_EPHEMERAL_TABLE_H_
#define TENSORSHELF_STORE_EPHEMERAL_TABLE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "index/record.h"
#include "store/extent_allocator.h"
#include "store/lease_table.h"
#include "store/memory_tier.h"
#include "store/staged_object.h"

namespace tensorshelf {

// Thread-safe.
class EphemeralTable {
 public:
  // `memory_tier` is told of dropped objects; null: there is none.
  EphemeralTable(ExtentAllocator* allocator, LeaseTable* leases, MemoryTier* memory_tier)
      : allocator_(allocator), leases_(leases), memory_tier_(memory_tier) {}

  // Publishes all of `staged` under their names or, when `check` refuses one, none; replaces older ephemeral objects.
  // `check` runs under the table's lock, so that a durable name that is committed at the same time either is seen by it
  // or removes this entry afterwards.
  absl::Status Put(std::span<StagedObject* const> staged,
                   const std::function<absl::Status(const std::string& name)>& check);
  void Delete(const std::string& name);

  // With a lease on the object, which the caller must release.
  std::shared_ptr<const ObjectRecord> FindAndLease(const std::string& name);
  bool Contains(const std::string& name) const;
  // Names from `start` within `prefix`, in byte order, with their generations; at most `count_max`.
  std::vector<std::pair<std::string, uint64_t>> List(const std::string& prefix, const std::string& start,
                                                     size_t count_max) const;
  size_t size() const { return size_.load(std::memory_order_relaxed); }

  // scratch -> free for dropped objects that nobody leases.
  void Reclaim();
  // At close: everything.
  void Clear();

 private:
  void DropLocked(const std::shared_ptr<const ObjectRecord>& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReclaimLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ExtentAllocator* const allocator_;
  LeaseTable* const leases_;
  MemoryTier* const memory_tier_;
  std::atomic<size_t> size_{0};
  mutable absl::Mutex mutex_;  // before the allocator's, the lease table's and the memory tier's
  absl::btree_map<std::string, std::shared_ptr<const ObjectRecord>> names_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<const ObjectRecord>> dropped_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_EPHEMERAL_TABLE_H_
