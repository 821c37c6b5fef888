#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/fault_in_thread.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/process_id.h"
#include "engine/foundation/status_macros.h"
#include "engine/memory.h"
#include "engine/memory_pages.h"

namespace tensorshelf {
namespace {

constexpr size_t kMappedSizeMin = size_t{1} << 20;  // below: malloc
constexpr size_t kPageAlignedSizeMin = size_t{64} << 10;
constexpr size_t kSmallAlignment = 64;  // a cache line, and what torch promises

// A kept piece may be this much larger than what is asked for: a quarter.
constexpr size_t LargestFit(size_t capacity) { return capacity + capacity / 4; }

// Leaks one reference, so that what it refers to is never destroyed. In a forked child the maps inside may have been
// copied in the middle of a change.
void Abandon(std::shared_ptr<MemoryPool::Shared> shared) {
  [[maybe_unused]] auto* leaked = new std::shared_ptr<MemoryPool::Shared>(std::move(shared));
}

}  // namespace

struct MemoryPool::Shared {
  struct Kept {
    MappedRegion region;
    uint64_t age = 0;  // smaller: given back earlier
  };

  explicit Shared(Options options) : options(std::move(options)) {}

  // The best fit among the kept pieces, now live; nullptr if there is none.
  std::byte* Recycle(size_t capacity, size_t* capacity_found);
  absl::StatusOr<std::byte*> MapFresh(size_t capacity);
  void GiveBack(std::byte* data);
  void Unmap(std::vector<MappedRegion> regions);  // tells the hook, then lets go of them
  std::vector<MappedRegion> TakeKept();
  void Notice(std::atomic<bool>& said, const std::string& message);

  const Options options;
  const pid_t process = ProcessId();

  std::atomic<uint64_t> held_bytes{0};
  std::atomic<bool> said_unlocked{false};
  std::atomic<bool> said_small_pages{false};

  mutable absl::Mutex mutex;                                      // hooks are called without it
  std::map<uintptr_t, MappedRegion> live ABSL_GUARDED_BY(mutex);  // by first address
  std::multimap<size_t, Kept> kept ABSL_GUARDED_BY(mutex);        // by capacity
  bool pool_is_gone ABSL_GUARDED_BY(mutex) = false;
  uint64_t next_age ABSL_GUARDED_BY(mutex) = 0;
  uint64_t kept_bytes ABSL_GUARDED_BY(mutex) = 0;
  uint64_t recycled_count ABSL_GUARDED_BY(mutex) = 0;
  uint64_t mapped_count ABSL_GUARDED_BY(mutex) = 0;

  FaultInThread fault_in_thread;
};

std::byte* MemoryPool::Shared::Recycle(size_t capacity, size_t* capacity_found) {
  absl::MutexLock lock(&mutex);
  const auto fit = kept.lower_bound(capacity);
  if (fit == kept.end() || fit->first > LargestFit(capacity)) return nullptr;
  MappedRegion region = std::move(fit->second.region);
  kept.erase(fit);
  *capacity_found = region.size();
  kept_bytes -= region.size();
  ++recycled_count;
  std::byte* data = region.data();
  live.emplace(reinterpret_cast<uintptr_t>(data), std::move(region));
  return data;
}

absl::StatusOr<std::byte*> MemoryPool::Shared::MapFresh(size_t capacity) {
  const RegionOptions region_options{.huge_pages = true, .page_locked = options.page_locked};
  absl::StatusOr<MappedRegion> region = MappedRegion::Map(capacity, region_options);
  if (!region.ok()) {
    // What is kept may be what is missing.
    Unmap(TakeKept());
    region = MappedRegion::Map(capacity, region_options);
  }
  if (!region.ok()) return std::move(region).status();
  if (options.page_locked && !region->page_locked()) {
    Notice(said_unlocked, "results are not page-locked: RLIMIT_MEMLOCK is too low");
  }
  if (!region->huge_pages()) Notice(said_small_pages, "results are not on huge pages: transparent huge pages are off");

  std::byte* data = region->data();
  if (options.hooks.mapped) options.hooks.mapped(data, capacity);
  absl::MutexLock lock(&mutex);
  ++mapped_count;
  live.emplace(reinterpret_cast<uintptr_t>(data), *std::move(region));
  return data;
}

void MemoryPool::Shared::GiveBack(std::byte* data) {
  std::vector<MappedRegion> surplus;
  {
    absl::MutexLock lock(&mutex);
    const auto at = live.find(reinterpret_cast<uintptr_t>(data));
    TS_CHECK(at != live.end());
    MappedRegion region = std::move(at->second);
    live.erase(at);
    const size_t capacity = region.size();
    if (pool_is_gone || (capacity > options.kept_bytes_max && !TS_MUTATE(unbounded_result_pool))) {
      surplus.push_back(std::move(region));
    } else {
      // The oldest go first: sizes that nobody asks for any more do not fill the pool for ever.
      while (kept_bytes + capacity > options.kept_bytes_max && !TS_MUTATE(unbounded_result_pool)) {
        auto oldest = kept.begin();
        for (auto other = kept.begin(); other != kept.end(); ++other) {
          if (other->second.age < oldest->second.age) oldest = other;
        }
        kept_bytes -= oldest->first;
        surplus.push_back(std::move(oldest->second.region));
        kept.erase(oldest);
      }
      kept_bytes += capacity;
      kept.emplace(capacity, Kept{std::move(region), next_age++});
    }
  }
  Unmap(std::move(surplus));
}

void MemoryPool::Shared::Unmap(std::vector<MappedRegion> regions) {
  if (!options.hooks.unmapping) return;
  for (const MappedRegion& region : regions) options.hooks.unmapping(region.data(), region.size());
}

std::vector<MappedRegion> MemoryPool::Shared::TakeKept() {
  std::vector<MappedRegion> regions;
  absl::MutexLock lock(&mutex);
  for (auto& [capacity, piece] : kept) regions.push_back(std::move(piece.region));
  kept.clear();
  kept_bytes = 0;
  return regions;
}

void MemoryPool::Shared::Notice(std::atomic<bool>& said, const std::string& message) {
  if (options.hooks.notice && !said.exchange(true)) options.hooks.notice(message);
}

MemoryPool::Piece::Piece(Piece&& other) noexcept
    : shared_(std::move(other.shared_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      capacity_(std::exchange(other.capacity_, 0)),
      touched_(std::exchange(other.touched_, false)) {}

MemoryPool::Piece& MemoryPool::Piece::operator=(Piece&& other) noexcept {
  Piece taken(std::move(other));
  std::swap(shared_, taken.shared_);
  std::swap(data_, taken.data_);
  std::swap(size_, taken.size_);
  std::swap(capacity_, taken.capacity_);
  std::swap(touched_, taken.touched_);
  return *this;
}

MemoryPool::Piece::~Piece() {
  if (data_ == nullptr) return;
  shared_->held_bytes -= size_;
  const bool is_mapped = capacity_ != 0;
  if (!is_mapped) std::free(data_);
  if (shared_->process != ProcessId()) {
    // See the class: no lock is safe here. Failing to unmap costs address space only.
    if (is_mapped) ::munmap(data_, capacity_);
    Abandon(std::move(shared_));
    return;
  }
  if (is_mapped) shared_->GiveBack(data_);
}

MemoryPool::MemoryPool(Options options) : shared_(std::make_shared<Shared>(std::move(options))) {}

MemoryPool::~MemoryPool() {
  if (shared_->process != ProcessId()) {
    Abandon(std::move(shared_));
    return;
  }
  {
    absl::MutexLock lock(&shared_->mutex);
    shared_->pool_is_gone = true;
  }
  Trim();
}

absl::StatusOr<MemoryPool::Piece> MemoryPool::Allocate(size_t size) {
  Piece piece;
  if (size == 0) return piece;
  if (size > SIZE_MAX / 2) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes"));
  if (size < kMappedSizeMin) {
    const size_t alignment = size < kPageAlignedSizeMin ? kSmallAlignment : kPageSize;
    piece.data_ = static_cast<std::byte*>(std::aligned_alloc(alignment, RoundUp(size, alignment)));
    if (piece.data_ == nullptr) return absl::ResourceExhaustedError(absl::StrCat("no memory for ", size, " bytes"));
  } else {
    piece.capacity_ = RoundUp(size, kHugePageSize);
    piece.data_ = shared_->Recycle(piece.capacity_, &piece.capacity_);
    piece.touched_ = piece.data_ != nullptr;
    if (piece.data_ == nullptr) {
      TS_ASSIGN_OR_RETURN(piece.data_, shared_->MapFresh(piece.capacity_));
    }
  }
  piece.size_ = size;
  piece.shared_ = shared_;
  shared_->held_bytes += size;
  return piece;
}

bool MemoryPool::Owns(const void* address, size_t size) const {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  absl::ReaderMutexLock lock(&shared_->mutex);
  auto after = shared_->live.upper_bound(begin);
  if (after == shared_->live.begin()) return false;
  const auto& [first, region] = *--after;
  return begin - first < region.size() && size <= region.size() - (begin - first);
}

MemoryPool::Stats MemoryPool::stats() const {
  absl::MutexLock lock(&shared_->mutex);
  return {.held_bytes = shared_->held_bytes,
          .kept_bytes = shared_->kept_bytes,
          .recycled_count = shared_->recycled_count,
          .mapped_count = shared_->mapped_count};
}

void MemoryPool::Trim() { shared_->Unmap(shared_->TakeKept()); }

std::shared_ptr<void> MemoryPool::FaultInBehind(std::span<const std::span<std::byte>> ranges) {
  return shared_->fault_in_thread.Start(ranges);
}

}  // namespace tensorshelf
