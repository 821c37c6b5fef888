#include "store/prefetcher.h"

#include <algorithm>
#include <utility>

namespace tensorshelf {
namespace {

constexpr uint64_t kWaitingMax = uint64_t{1} << 20;  // names
constexpr size_t kStepNames = 256;

}  // namespace

void Prefetcher::Add(std::span<const std::string> names, const ReadOptions& options) {
  absl::MutexLock lock(&mutex_);
  const size_t count = std::min<uint64_t>(names.size(), kWaitingMax - waiting_);
  if (count == 0 || stopping_) return;
  List list;
  list.names.assign(names.begin(), names.begin() + static_cast<ptrdiff_t>(count));
  list.options = options;
  waiting_ += count;
  lists_.push_back(std::move(list));
  if (!thread_.joinable()) thread_ = std::thread([this] { Loop(); });
}

void Prefetcher::DropFirstLocked() {
  waiting_ -= lists_.front().names.size() - lists_.front().next;
  lists_.pop_front();
}

void Prefetcher::Loop() {
  mutex_.Lock();
  while (true) {
    mutex_.Await(absl::Condition(
        +[](Prefetcher* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->stopping_ || !self->lists_.empty(); },
        this));
    if (stopping_) break;
    List& list = lists_.front();  // only this thread removes it, and a deque's elements stay where they are
    const auto names = std::span<const std::string>(list.names).subspan(list.next);
    mutex_.Unlock();
    const Step step = step_(names.first(std::min(names.size(), kStepNames)), list.options);
    mutex_.Lock();
    list.next += step.names;
    list.bytes += step.bytes;
    waiting_ -= step.names;
    if (list.next == list.names.size() || list.bytes >= list_bytes_max_) DropFirstLocked();
  }
  mutex_.Unlock();
}

void Prefetcher::WaitUntilIdle() {
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(
      +[](Prefetcher* self) ABSL_NO_THREAD_SAFETY_ANALYSIS { return self->stopping_ || self->lists_.empty(); }, this));
}

uint64_t Prefetcher::waiting() const {
  absl::MutexLock lock(&mutex_);
  return waiting_;
}

void Prefetcher::Stop() {
  std::thread thread;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    std::swap(thread, thread_);
  }
  if (thread.joinable()) thread.join();
}

}  // namespace tensorshelf
