// Decoded name rows and records kept in memory: what makes a lookup cost well below a microsecond.
//
// Coherence. Rows change only in a commit. A reader that misses takes a ticket, reads the row from RocksDB and offers
// it with the ticket; the committer writes first and invalidates afterwards. An invalidation voids every ticket of its
// shard that is still out, so a row read before the commit cannot enter after it.
//
// Two maps, because they change apart: a rename moves a name to no new record, and a move rewrites a record under names
// that stay.

#ifndef TENSORSHELF_INDEX_RECORD_CACHE_H_
#define TENSORSHELF_INDEX_RECORD_CACHE_H_

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "index/record.h"

namespace tensorshelf {

// Bounded in bytes, in shards with a mutex each. Drops the oldest entry, but one that was found since it was last
// passed over gets another round: near to least recently used, and a hit writes nothing but its own entry. Thread-safe.
// `Key` is std::string or uint64_t.
template <typename Key, typename Value>
class CoherentCache {
 public:
  // How long the answer of a miss may be offered.
  using Ticket = uint64_t;

  explicit CoherentCache(uint64_t bytes_max) : shard_bytes_max_(bytes_max / kShards) {}

  // The value, or a ticket for Offer in `*ticket`.
  std::optional<Value> Find(const Key& key, Ticket* ticket) {
    const size_t hash = Hash{}(key);
    Shard& shard = ShardOf(hash);
    absl::MutexLock lock(&shard.mutex);
    const auto found = shard.entries.find(key, hash);
    if (found == shard.entries.end()) {
      *ticket = shard.invalidations;
      ++shard.misses;
      return std::nullopt;
    }
    ++shard.hits;
    found->second->found = true;
    return found->second->value;
  }

  // Keeps the value unless the shard was invalidated since the ticket was given. `value_bytes`: the memory it holds.
  void Offer(const Key& key, Value value, uint64_t value_bytes, Ticket ticket) {
    const uint64_t bytes = value_bytes + KeyBytes(key) + kEntryBytes;
    if (bytes > shard_bytes_max_) return;
    Shard& shard = ShardOf(Hash{}(key));
    absl::MutexLock lock(&shard.mutex);
    if (shard.invalidations != ticket || shard.entries.contains(key)) return;
    while (shard.bytes + bytes > shard_bytes_max_) DropOne(shard);
    shard.by_age.push_front(Entry{.key = key, .value = std::move(value), .bytes = bytes, .found = false});
    shard.entries.emplace(shard.by_age.front().key, shard.by_age.begin());
    shard.bytes += bytes;
  }

  void Invalidate(const Key& key) {
    Shard& shard = ShardOf(Hash{}(key));
    absl::MutexLock lock(&shard.mutex);
    ++shard.invalidations;
    if (const auto found = shard.entries.find(key); found != shard.entries.end()) Drop(shard, found->second);
  }

  void Clear() {
    for (Shard& shard : shards_) {
      absl::MutexLock lock(&shard.mutex);
      ++shard.invalidations;
      shard.entries.clear();
      shard.by_age.clear();
      shard.bytes = 0;
    }
  }

  struct Counts {
    uint64_t hits = 0, misses = 0, bytes = 0;
  };
  Counts counts() {
    Counts sum;
    for (Shard& shard : shards_) {
      absl::MutexLock lock(&shard.mutex);
      sum.hits += shard.hits;
      sum.misses += shard.misses;
      sum.bytes += shard.bytes;
    }
    return sum;
  }

 private:
  static constexpr size_t kShards = 16;
  // The list node's links and the hash table's slot, at its usual load.
  static constexpr uint64_t kEntryBytes = 64;

  struct Entry {
    Key key;
    Value value;
    uint64_t bytes;
    bool found;
  };
  using ByAge = std::list<Entry>;  // the newest first
  // Looks up by a view of the key that the list holds, so that a name is kept once.
  using KeyView = std::conditional_t<std::is_same_v<Key, std::string>, absl::string_view, Key>;
  using Hash = absl::Hash<KeyView>;

  struct alignas(64) Shard {
    absl::Mutex mutex;
    uint64_t invalidations ABSL_GUARDED_BY(mutex) = 0;
    uint64_t hits ABSL_GUARDED_BY(mutex) = 0;
    uint64_t misses ABSL_GUARDED_BY(mutex) = 0;
    uint64_t bytes ABSL_GUARDED_BY(mutex) = 0;
    ByAge by_age ABSL_GUARDED_BY(mutex);
    absl::flat_hash_map<KeyView, typename ByAge::iterator, Hash> entries ABSL_GUARDED_BY(mutex);
  };

  static uint64_t KeyBytes(const Key& key) {
    if constexpr (std::is_same_v<Key, std::string>) {
      return sizeof(Entry) + (key.size() < sizeof(std::string) / 2 ? 0 : key.size() + 1);
    } else {
      return sizeof(Entry);
    }
  }

  // The table inside a shard goes by the lower bits.
  Shard& ShardOf(size_t hash) { return shards_[(hash >> 48) % kShards]; }

  static void DropOne(Shard& shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex) {
    auto oldest = std::prev(shard.by_age.end());
    while (oldest->found) {
      oldest->found = false;
      shard.by_age.splice(shard.by_age.begin(), shard.by_age, oldest);
      oldest = std::prev(shard.by_age.end());
    }
    Drop(shard, oldest);
  }

  static void Drop(Shard& shard, typename ByAge::iterator entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex) {
    shard.bytes -= entry->bytes;
    shard.entries.erase(KeyView(entry->key));
    shard.by_age.erase(entry);
  }

  const uint64_t shard_bytes_max_;
  std::array<Shard, kShards> shards_;
};

// A record, and the payload where it is inline.
struct CachedRecord {
  std::shared_ptr<const ObjectRecord> record;
  std::shared_ptr<const std::string> payload;
};

// Memory that a decoded row holds, in bytes, with what it allocated.
uint64_t MemoryBytes(const NameRow& row);
uint64_t MemoryBytes(const ObjectRecord& record);
uint64_t MemoryBytes(const CachedRecord& cached);

// Thread-safe. 0 bytes: keeps nothing.
class RecordCache {
 public:
  explicit RecordCache(uint64_t bytes_max);

  CoherentCache<std::string, NameRow>& names() { return names_; }
  CoherentCache<uint64_t, CachedRecord>& records() { return records_; }
  void Clear();

 private:
  CoherentCache<std::string, NameRow> names_;
  CoherentCache<uint64_t, CachedRecord> records_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_INDEX_RECORD_CACHE_H_
