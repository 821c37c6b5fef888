// Memory that transfers well: page-aligned, on huge pages where the kernel gives them, faulted once and used again.
//
// Three users: StagingArena (fixed buffers with back-pressure for bytes that come from or go to memory of others),
// MemoryPool (results and ts.empty tensors, recycled), and callers who want one MappedRegion.
// Huge pages cut the CPU cost of a libaio read by six to ten; a first-touch page fault costs more than the disk.

#ifndef TENSORSHELF_ENGINE_MEMORY_H_
#define TENSORSHELF_ENGINE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tensorshelf {

// What a binding may want to know of long-lived memory, for instance to register it with CUDA. Called from any thread.
struct MemoryHooks {
  std::function<void(void* address, size_t size)> mapped = nullptr;
  std::function<void(void* address, size_t size)> unmapping = nullptr;
  std::function<void(const std::string& message)> notice = nullptr;  // said once: no page lock, no huge pages
};

struct RegionOptions {
  // From 2 MiB up: hugetlb if enough are free and dont_fork is set, else transparent huge pages (madvise).
  bool huge_pages = true;
  bool page_locked = false;  // mlock; where RLIMIT_MEMLOCK refuses, the region is plain and page_locked() is false
  bool dont_fork = false;    // MADV_DONTFORK: a forked child has no such mapping
  bool populate = false;     // fault everything in before returning
};

// Owns one anonymous private mapping, zeroed and page-aligned. size() is what was asked for, rounded up to whole pages
// (of 2 MiB where huge pages were wanted). Movable, not copyable; thread-compatible. In a forked child the destructor
// leaves a dont_fork region alone.
class MappedRegion {
 public:
  MappedRegion() = default;
  static absl::StatusOr<MappedRegion> Map(size_t size, const RegionOptions& options);  // ResourceExhausted: no memory
  MappedRegion(MappedRegion&& other) noexcept;
  MappedRegion& operator=(MappedRegion&& other) noexcept;
  ~MappedRegion();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  bool page_locked() const { return page_locked_; }
  bool huge_pages() const { return huge_pages_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  bool page_locked_ = false;
  bool huge_pages_ = false;
  int unforked_process_ = 0;  // the pid that has the mapping, where a forked child has not; else 0
};

// Recycled memory for results. Pieces of 1 MiB and more lie on huge pages of their own; smaller ones come from malloc,
// page-aligned from 64 KiB up, and are not recycled. Thread-safe. Pieces may outlive the pool.
// In a forked child pieces can be read, written and destroyed, because that touches no lock of the pool (another thread
// may have held it during the fork): a piece is then only unmapped. The pool itself must not be called there.
class MemoryPool {
 public:
  struct Options {
    // Free memory that is kept for reuse, bytes. Pieces that users hold do not count against it.
    uint64_t kept_bytes_max = uint64_t{4} << 30;
    bool page_locked = false;
    MemoryHooks hooks = {};
  };
  struct Stats {
    uint64_t held_bytes = 0;  // out with users
    uint64_t kept_bytes = 0;  // free, faulted in, ready
    uint64_t recycled_count = 0;
    uint64_t mapped_count = 0;
  };
  struct Shared;  // what pieces keep alive

  // A piece of `size()` usable bytes, 4 KiB aligned when at least 64 KiB. Movable; gives itself back when destroyed,
  // from any thread.
  class Piece {
   public:
    Piece() = default;
    Piece(Piece&& other) noexcept;
    Piece& operator=(Piece&& other) noexcept;
    ~Piece();

    std::byte* data() const { return data_; }
    size_t size() const { return size_; }
    // True when the memory has been written before, so that reading into it faults nothing in.
    bool touched() const { return touched_; }

   private:
    friend class MemoryPool;
    std::shared_ptr<Shared> shared_;
    std::byte* data_ = nullptr;
    size_t size_ = 0;
    size_t capacity_ = 0;
    bool touched_ = false;
  };

  explicit MemoryPool(Options options);
  ~MemoryPool();
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  absl::StatusOr<Piece> Allocate(size_t size);  // size 0 is legal: an empty piece
  // Whether [address, address + size) lies in one live piece of this pool of the kind that lies on huge pages (where
  // the kernel has them): such memory goes to the device without a copy.
  bool Owns(const void* address, size_t size) const;
  Stats stats() const;
  // Gives kept memory back to the system.
  void Trim();

  // Faults fresh pieces in, front to back, on a thread of the pool, and returns at once, so that it runs while the disk
  // works. The pieces must stay alive until the returned ticket is destroyed, which waits for or cuts short the rest.
  std::shared_ptr<void> FaultInBehind(std::span<const std::span<std::byte>> ranges);

 private:
  std::shared_ptr<Shared> shared_;
};

// A fixed set of equal, huge-page, MADV_DONTFORK buffers. Waiting is first in, first out, and counts buffers, not
// requests, so any transfer passes through however small the arena. Thread-safe.
// Rule for users: never wait for a buffer while holding transfers in flight; reap your own first.
class StagingArena {
 public:
  struct Options {
    uint64_t size = uint64_t{64} << 20;        // bytes, rounded up to whole buffers; at least two buffers
    uint64_t buffer_size = uint64_t{1} << 20;  // bytes
    bool page_locked = true;
    MemoryHooks hooks = {};
  };

  static absl::StatusOr<std::unique_ptr<StagingArena>> Create(const Options& options);
  ~StagingArena();

  size_t buffer_size() const;
  size_t buffer_count() const;
  size_t free_count() const;
  size_t waiting_count() const;  // callers inside Take()
  bool page_locked() const;

  std::byte* TryTake();  // nullptr when none is free or others wait
  std::byte* Take();     // blocks
  void GiveBack(std::byte* buffer);

 private:
  struct State;
  explicit StagingArena(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_MEMORY_H_
