#include "engine/fault_in_thread.h"

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "engine/memory_pages.h"

namespace tensorshelf {

struct FaultInThread::Job {
  // The next step of the job, empty at its end. Whole pages; a neighbour's part of the first and last page is faulted
  // in too, which harms nobody.
  std::span<std::byte> NextStep();

  std::vector<std::span<std::byte>> ranges;
  size_t range_index = 0;
  size_t offset = 0;  // in that range
};

struct FaultInThread::Queue {
  const pid_t process = ::getpid();
  absl::Mutex mutex;
  std::deque<Job*> jobs ABSL_GUARDED_BY(mutex);    // in order; owned by the tickets
  Job* stepping ABSL_GUARDED_BY(mutex) = nullptr;  // the job of which the thread is faulting in a step
  bool stopping ABSL_GUARDED_BY(mutex) = false;

  void Drop(Job* job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    jobs.erase(std::remove(jobs.begin(), jobs.end(), job), jobs.end());
  }
};

std::span<std::byte> FaultInThread::Job::NextStep() {
  while (range_index < ranges.size() && offset >= ranges[range_index].size()) {
    ++range_index;
    offset = 0;
  }
  if (range_index == ranges.size()) return {};
  const std::span<std::byte> rest = ranges[range_index].subspan(offset);
  const size_t before = reinterpret_cast<uintptr_t>(rest.data()) % kPageSize;
  // Up to a boundary of the step size, so that no huge page is met twice.
  const size_t to_boundary = kPopulateStep - reinterpret_cast<uintptr_t>(rest.data()) % kPopulateStep;
  const size_t length = std::min(rest.size(), to_boundary);
  offset += length;
  return {rest.data() - before, RoundUp(before + length, kPageSize)};
}

FaultInThread::FaultInThread() : queue_(std::make_shared<Queue>()) {}

FaultInThread::~FaultInThread() {
  {
    absl::MutexLock lock(&queue_->mutex);
    queue_->stopping = true;
  }
  absl::MutexLock lock(&start_mutex_);
  if (thread_.joinable()) thread_.join();
}

std::shared_ptr<void> FaultInThread::Start(std::span<const std::span<std::byte>> ranges) {
  auto job = std::make_unique<Job>();
  job->ranges.assign(ranges.begin(), ranges.end());
  {
    absl::MutexLock lock(&start_mutex_);
    if (!thread_.joinable()) thread_ = std::thread([queue = queue_] { Run(*queue); });
  }
  {
    absl::MutexLock lock(&queue_->mutex);
    queue_->jobs.push_back(job.get());
  }
  return std::shared_ptr<void>(job.release(), [queue = queue_](void* pointer) {
    const std::unique_ptr<Job> ended(static_cast<Job*>(pointer));
    if (queue->process != ::getpid()) return;
    absl::MutexLock lock(&queue->mutex);
    queue->Drop(ended.get());
    const auto let_go = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return queue->stepping != ended.get(); };
    queue->mutex.Await(absl::Condition(&let_go));
  });
}

void FaultInThread::Run(Queue& queue) {
  queue.mutex.Lock();
  while (true) {
    queue.mutex.Await(absl::Condition(
        +[](Queue* queue) ABSL_NO_THREAD_SAFETY_ANALYSIS { return queue->stopping || !queue->jobs.empty(); }, &queue));
    if (queue.stopping) break;
    Job* const job = queue.jobs.front();
    const std::span<std::byte> step = job->NextStep();
    if (step.empty()) {
      queue.Drop(job);
      continue;
    }
    queue.stepping = job;
    queue.mutex.Unlock();
    const PopulateResult result = PopulateForWriting(step.data(), step.size());
    queue.mutex.Lock();
    queue.stepping = nullptr;
    // An old kernel or no memory: the pages come with their first use then, as they would have without this thread.
    if (result != PopulateResult::kDone) queue.Drop(job);
  }
  queue.mutex.Unlock();
}

}  // namespace tensorshelf
