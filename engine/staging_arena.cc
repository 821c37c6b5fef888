#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/foundation/status_macros.h"
#include "engine/memory.h"
#include "engine/memory_pages.h"

namespace tensorshelf {

struct StagingArena::State {
  State(const Options& options, MappedRegion mapped, size_t buffer_count)
      : options(options), region(std::move(mapped)), buffer_count(buffer_count) {
    for (size_t i = buffer_count; i-- > 0;) free.push_back(region.data() + i * options.buffer_size);
  }

  const Options options;
  const MappedRegion region;
  const size_t buffer_count;
  const pid_t process = ::getpid();

  // A buffer that comes back goes straight to the longest waiter, so nobody can overtake. So `free` is empty whenever
  // somebody waits.
  absl::Mutex mutex;
  std::vector<std::byte*> free ABSL_GUARDED_BY(mutex);     // the last one in is the first one out: still in the cache
  std::deque<std::byte**> waiters ABSL_GUARDED_BY(mutex);  // each on its waiter's stack, null until served
};

absl::StatusOr<std::unique_ptr<StagingArena>> StagingArena::Create(const Options& options) {
  if (options.buffer_size == 0 || options.buffer_size % kPageSize != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("a staging buffer of ", options.buffer_size, " bytes: must be a multiple of ", kPageSize));
  }
  const size_t wanted = options.size / options.buffer_size + (options.size % options.buffer_size != 0 ? 1 : 0);
  const size_t buffer_count = std::max<size_t>(wanted, 2);
  if (buffer_count > SIZE_MAX / 2 / options.buffer_size) {
    return absl::InvalidArgumentError(absl::StrCat("a staging arena of ", options.size, " bytes"));
  }
  const RegionOptions region_options{
      .huge_pages = true, .page_locked = options.page_locked, .dont_fork = true, .populate = true};
  TS_ASSIGN_OR_RETURN(MappedRegion region, MappedRegion::Map(buffer_count * options.buffer_size, region_options));

  const MemoryHooks& hooks = options.hooks;
  if (hooks.notice && options.page_locked && !region.page_locked()) {
    hooks.notice(
        absl::StrCat("the staging arena of ", region.size(), " bytes is not page-locked: RLIMIT_MEMLOCK is too low"));
  }
  if (hooks.notice && !region.huge_pages()) {
    hooks.notice("the staging arena is not on huge pages: it is below 2 MiB or transparent huge pages are off");
  }
  if (hooks.mapped) hooks.mapped(region.data(), region.size());
  return std::unique_ptr<StagingArena>(
      new StagingArena(std::make_unique<State>(options, std::move(region), buffer_count)));
}

StagingArena::StagingArena(std::unique_ptr<State> state) : state_(std::move(state)) {}

StagingArena::~StagingArena() {
  const MemoryHooks& hooks = state_->options.hooks;
  // A forked child has no such mapping.
  if (state_->process == ::getpid() && hooks.unmapping) hooks.unmapping(state_->region.data(), state_->region.size());
}

size_t StagingArena::buffer_size() const { return state_->options.buffer_size; }

size_t StagingArena::buffer_count() const { return state_->buffer_count; }

size_t StagingArena::free_count() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->free.size();
}

size_t StagingArena::waiting_count() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->waiters.size();
}

bool StagingArena::page_locked() const { return state_->region.page_locked(); }

std::byte* StagingArena::TryTake() {
  absl::MutexLock lock(&state_->mutex);
  if (state_->free.empty()) return nullptr;
  std::byte* buffer = state_->free.back();
  state_->free.pop_back();
  return buffer;
}

std::byte* StagingArena::Take() {
  absl::MutexLock lock(&state_->mutex);
  if (!state_->free.empty()) {
    std::byte* buffer = state_->free.back();
    state_->free.pop_back();
    return buffer;
  }
  std::byte* served = nullptr;
  state_->waiters.push_back(&served);
  state_->mutex.Await(absl::Condition(
      +[](std::byte** served) { return *served != nullptr; }, &served));
  return served;
}

void StagingArena::GiveBack(std::byte* buffer) {
  const std::byte* begin = state_->region.data();
  TS_CHECK(buffer >= begin && buffer < begin + state_->buffer_count * buffer_size());
  TS_CHECK(static_cast<size_t>(buffer - begin) % buffer_size() == 0);
  absl::MutexLock lock(&state_->mutex);
  if (!state_->waiters.empty()) {
    *state_->waiters.front() = buffer;
    state_->waiters.pop_front();
    return;
  }
  TS_CHECK(state_->free.size() < state_->buffer_count);
  state_->free.push_back(buffer);
}

}  // namespace tensorshelf
