#include "python/aio/locked_memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <sys/resource.h>

#include <cerrno>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/disk.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

std::string LimitText() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return "unknown";
  return limit.rlim_cur == RLIM_INFINITY ? "unlimited" : absl::StrCat(limit.rlim_cur, " bytes");
}

absl::StatusOr<MappedRegion> MapLocked(size_t size) {
  TS_ASSIGN_OR_RETURN(MappedRegion region, MappedRegion::Map(size, {.page_locked = true, .populate = true}));
  if (!region.page_locked()) {
    // Rounding up to huge pages may have been what was too much.
    region = MappedRegion();
    TS_ASSIGN_OR_RETURN(region, MappedRegion::Map(size, {.huge_pages = false, .page_locked = true, .populate = true}));
  }
  if (region.page_locked()) return region;
  return WithErrorNumber(absl::ResourceExhaustedError(absl::StrCat(
                             "cannot lock ", size, " bytes of memory: RLIMIT_MEMLOCK (ulimit -l) of this process is ",
                             LimitText(), ", what it has locked already counts too")),
                         ENOMEM);
}

}  // namespace

absl::StatusOr<at::Tensor> LockedMemory::NewTensor(int64_t element_count, at::ScalarType type, Owner owner) {
  const at::TensorOptions options = at::TensorOptions().dtype(type).device(at::kCPU);
  const auto item_size = static_cast<int64_t>(c10::elementSize(type));
  if (element_count < 0 || element_count > std::numeric_limits<int64_t>::max() / 2 / item_size) {
    return absl::InvalidArgumentError(absl::StrCat("num_elem ", element_count, " is negative or too large"));
  }
  if (element_count == 0) return at::empty({0}, options);
  absl::StatusOr<MappedRegion> region = MapLocked(static_cast<size_t>(element_count * item_size));
  if (!region.ok()) {
    return ErrorNumberOf(region.status()) != 0 ? region.status() : WithErrorNumber(region.status(), ENOMEM);
  }
  auto piece = std::make_shared<Piece>(*std::move(region));
  std::byte* data = piece->region.data();
  {
    absl::MutexLock lock(&mutex_);
    live_[reinterpret_cast<uintptr_t>(data)] = {.kept = piece, .size = piece->region.size(), .owner = owner};
  }
  return at::from_blob(
      data, {element_count}, [this, piece](void*) mutable { LetGo(std::move(piece)); }, options);
}

// The tensor and all its views are gone.
void LockedMemory::LetGo(std::shared_ptr<Piece> piece) {
  // In a forked child the mutex may have been held by another thread: there the memory is only unmapped.
  if (piece->process != ::getpid()) return;
  std::shared_ptr<Piece> last;  // unmapped without the lock
  absl::MutexLock lock(&mutex_);
  // An allocation at this address is this one, because its memory is still mapped.
  const auto found = live_.find(reinterpret_cast<uintptr_t>(piece->region.data()));
  const bool kept = found != live_.end() && found->second.kept != nullptr;
  if (found != live_.end() && !kept) live_.erase(found);
  // Given up under the lock, so that Disown sees who is left.
  if (kept) {
    piece.reset();
  } else {
    last = std::move(piece);
  }
}

bool LockedMemory::Free(const void* address) {
  std::shared_ptr<Piece> kept;  // unmapped without the lock
  absl::MutexLock lock(&mutex_);
  const auto found = live_.find(reinterpret_cast<uintptr_t>(address));
  if (found == live_.end()) return false;
  kept = std::move(found->second.kept);
  live_.erase(found);
  return true;
}

bool LockedMemory::Covers(const void* address, size_t size) const {
  const auto begin = reinterpret_cast<uintptr_t>(address);
  absl::ReaderMutexLock lock(&mutex_);
  auto after = live_.upper_bound(begin);
  if (after == live_.begin()) return false;
  const auto& [first, allocation] = *--after;
  return begin - first < allocation.size && size <= allocation.size - (begin - first);
}

void LockedMemory::Disown(Owner owner) {
  std::vector<std::shared_ptr<Piece>> dropped;  // unmapped without the lock
  absl::MutexLock lock(&mutex_);
  for (auto at = live_.begin(); at != live_.end();) {
    Allocation& allocation = at->second;
    if (allocation.owner != owner || allocation.kept == nullptr) {
      ++at;
      continue;
    }
    const bool unused = allocation.kept.use_count() == 1;
    dropped.push_back(std::move(allocation.kept));
    at = unused ? live_.erase(at) : std::next(at);
  }
}

}  // namespace tensorshelf
