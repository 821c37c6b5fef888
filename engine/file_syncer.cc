#include "engine/file_syncer.h"

#include <algorithm>
#include <utility>

#include "absl/synchronization/blocking_counter.h"
#include "engine/worker_thread.h"

namespace tensorshelf {
namespace {

// More files than this wait for each other; there is about one a device.
constexpr size_t kThreadMax = 16;

}  // namespace

struct FileSyncer::Round {
  explicit Round(const std::vector<File*>& files)
      : files(files), statuses(files.size()), unfinished(static_cast<int>(files.size())) {}

  const std::vector<File*>& files;
  std::vector<absl::Status> statuses;  // each written by one thread
  absl::BlockingCounter unfinished;
};

FileSyncer::~FileSyncer() {
  std::vector<std::thread> threads;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    threads = std::move(threads_);
  }
  for (std::thread& thread : threads) thread.join();
}

std::vector<absl::Status> FileSyncer::Sync(const std::vector<File*>& files) {
  if (files.empty()) return {};
  Round round(files);
  if (files.size() > 1) {
    absl::MutexLock lock(&mutex_);
    StartThreadsLocked(files.size() - 1);
    for (size_t i = 1; i < files.size(); ++i) jobs_.push_back({&round, i});
  }
  Finish({&round, 0});
  // What no thread has begun is done here, so a call ends even where no thread could be started.
  for (Job job;;) {
    {
      absl::MutexLock lock(&mutex_);
      if (!TakeJobOfLocked(&round, &job)) break;
    }
    Finish(job);
  }
  round.unfinished.Wait();
  return std::move(round.statuses);
}

void FileSyncer::StartThreadsLocked(size_t wanted) {
  while (threads_.size() < std::min(wanted, kThreadMax)) {
    auto thread = StartThread("shelf-sync", [this] { Work(); });
    if (!thread.ok()) return;
    threads_.push_back(*std::move(thread));
  }
}

bool FileSyncer::TakeJobOfLocked(const Round* round, Job* job) {
  const auto found = std::find_if(jobs_.begin(), jobs_.end(), [&](const Job& each) { return each.round == round; });
  if (found == jobs_.end()) return false;
  *job = *found;
  jobs_.erase(found);
  return true;
}

void FileSyncer::Finish(const Job& job) {
  job.round->statuses[job.index] = job.round->files[job.index]->Sync();
  job.round->unfinished.DecrementCount();
}

void FileSyncer::Work() {
  for (;;) {
    Job job;
    {
      absl::MutexLock lock(&mutex_);
      const auto wanted = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return closed_ || !jobs_.empty(); };
      mutex_.Await(absl::Condition(&wanted));
      if (jobs_.empty()) return;
      job = jobs_.front();
      jobs_.pop_front();
    }
    Finish(job);
  }
}

}  // namespace tensorshelf
