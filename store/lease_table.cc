#include "store/lease_table.h"

#include "engine/foundation/status_macros.h"

namespace tensorshelf {

void LeaseTable::Acquire(uint64_t generation, uint32_t place_seq) {
  Shard& shard = ShardOf(generation);
  absl::MutexLock lock(&shard.mutex);
  ++shard.counts[{generation, place_seq}];
  ++shard.total;
}

void LeaseTable::Release(uint64_t generation, uint32_t place_seq) {
  Shard& shard = ShardOf(generation);
  absl::MutexLock lock(&shard.mutex);
  const auto found = shard.counts.find({generation, place_seq});
  TS_CHECK(found != shard.counts.end());
  if (--found->second == 0) shard.counts.erase(found);
  --shard.total;
}

uint64_t LeaseTable::Count(uint64_t generation) const {
  const Shard& shard = ShardOf(generation);
  absl::MutexLock lock(&shard.mutex);
  uint64_t count = 0;
  for (auto at = shard.counts.lower_bound({generation, 0}); at != shard.counts.end() && at->first.first == generation;
       ++at) {
    count += at->second;
  }
  return count;
}

bool LeaseTable::Leased(uint64_t generation, uint32_t place_max) const {
  const Shard& shard = ShardOf(generation);
  absl::MutexLock lock(&shard.mutex);
  const auto oldest = shard.counts.lower_bound({generation, 0});
  return oldest != shard.counts.end() && oldest->first <= Key{generation, place_max};
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
