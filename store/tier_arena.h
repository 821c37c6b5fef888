// The memory of the memory tier: one region on huge pages, handed out in whole 4 KiB units.

#ifndef TENSORSHELF_STORE_TIER_ARENA_H_
#define TENSORSHELF_STORE_TIER_ARENA_H_

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/memory.h"
#include "store/free_runs.h"

namespace tensorshelf {

// Thread-safe. Kept alive by everything that was handed out of it. The region is private and stays with a forked child,
// which sees the bytes of the moment of the fork in what it holds; nothing may be taken or given back there.
class TierArena {
 public:
  // `bytes` is rounded down to whole units. ResourceExhausted: no address space. Memory is used as it is first written
  // to; what was used once is preferred.
  static absl::StatusOr<std::shared_ptr<TierArena>> Create(uint64_t bytes, bool page_locked, const MemoryHooks& hooks);
  ~TierArena();

  std::optional<UnitRun> Take(uint64_t units);
  void GiveBack(const UnitRun& run);
  // Nothing is taken any more: memory that nobody holds goes back to the system, the rest as it is given back.
  void Retire();

  std::byte* data(const UnitRun& run) const;
  uint64_t capacity() const { return units_ * kUnit; }
  uint64_t held_bytes() const;
  bool page_locked() const { return region_.page_locked(); }
  bool huge_pages() const { return region_.huge_pages(); }
  bool forked() const;

  static constexpr uint64_t kUnit = 4096;

 private:
  TierArena(MappedRegion region, uint64_t units, const MemoryHooks& hooks);
  void ReturnToSystem(const UnitRun& run) const;

  const MappedRegion region_;
  const uint64_t units_;
  const MemoryHooks hooks_;
  const pid_t process_;
  mutable absl::Mutex mutex_;  // a leaf
  FreeRuns free_ ABSL_GUARDED_BY(mutex_);
  bool retired_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_TIER_ARENA_H_
