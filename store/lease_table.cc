#include "store/lease_table.h"

#include "engine/foundation/status_macros.h"

namespace tensorshelf {

void LeaseTable::Acquire(uint64_t generation) {
  Shard& shard = ShardOf(generation);
  absl::MutexLock lock(&shard.mutex);
  ++shard.counts[generation];
  ++shard.total;
}

void LeaseTable::Release(uint64_t generation) {
  Shard& shard = ShardOf(generation);
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.counts.find(generation);
  TS_CHECK(found != shard.counts.end());
  if (--found->second == 0) shard.counts.erase(found);
  --shard.total;
}

uint64_t LeaseTable::Count(uint64_t generation) const {
  const Shard& shard = ShardOf(generation);
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.counts.find(generation);
  return found == shard.counts.end() ? 0 : found->second;
}

uint64_t LeaseTable::total() const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    sum += shard.total;
  }
  return sum;
}

uint64_t LeaseTable::generations() const {
  uint64_t sum = 0;
  for (const Shard& shard : shards_) {
    absl::MutexLock lock(&shard.mutex);
    sum += shard.counts.size();
  }
  return sum;
}

}  // namespace tensorshelf
