// What users of the memory tier see: hints, leases and counters. The tier itself is in store/memory_tier.h.

#ifndef TENSORSHELF_STORE_MEMORY_LEASE_H_
#define TENSORSHELF_STORE_MEMORY_LEASE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace tensorshelf {

// What the caller knows of the further use of an object. Hints steer what stays in memory, never what is returned.
enum class CacheHint : uint8_t {
  kNone,  // nothing: a read that misses leaves the object in the tier as the replacement policy sees fit, and a put
          // does where there is free room
  kKeep,  // wanted again: gives way to other kept objects alone
  kOnce,  // not wanted again soon: takes no room, and what the object has of it is taken first
};

// In which order the objects of a workload are read.
enum class AccessOrder : uint8_t {
  kAny,
  // The same long list again and again (the layers of a model that does not fit): a part of it stays and the rest is
  // read past the tier, instead of each object pushing out the one that is needed next.
  kSweep,
};

// A hold on the bytes of one object in the memory tier: they stay where they are and as they are while this lives,
// whatever happens to the name, the tier or the store. Not for writing: other readers see the same memory. Movable;
// thread-compatible, and may die on any thread, also after the store was closed. In a forked child the bytes are those
// of the moment of the fork, and nothing is given back.
class MemoryLease {
 public:
  struct Grant;

  MemoryLease();  // an empty one
  explicit MemoryLease(std::unique_ptr<Grant> grant);
  MemoryLease(MemoryLease&&) noexcept;
  MemoryLease& operator=(MemoryLease&&) noexcept;
  ~MemoryLease();

  bool empty() const { return grant_ == nullptr; }
  std::span<const std::byte> bytes() const;  // page-aligned; must not be called of an empty lease

 private:
  std::unique_ptr<Grant> grant_;
};

// Bytes where the name does not say otherwise; counters since the store was opened.
struct MemoryTierStats {
  uint64_t capacity = 0;
  uint64_t held_bytes = 0;  // taken, in whole 4 KiB: objects, leases, reads and puts under way
  uint64_t objects = 0;     // that a get would find
  uint64_t kept_objects = 0;
  uint64_t hits = 0, misses = 0;  // of reads that may use the tier, one for each object and call
  uint64_t hit_bytes = 0;
  uint64_t joined_reads = 0;  // of the misses: waited for the read of somebody else instead of reading
  uint64_t admissions = 0, rejected = 0;
  uint64_t evictions = 0;
  uint64_t leases = 0, leased_bytes = 0;
  double oldest_lease_s = 0;
  uint64_t prefetch_waiting = 0;  // names
  bool page_locked = false, huge_pages = false;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_MEMORY_LEASE_H_
