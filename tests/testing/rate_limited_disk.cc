#include "tests/testing/rate_limited_disk.h"

#include <algorithm>
#include <cerrno>
#include <map>

#include "absl/time/clock.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf::testing {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(1);  // of a stopped device

void SleepUntil(absl::Time moment) { absl::SleepFor(moment - absl::Now()); }

class RatedFile : public File {
 public:
  RatedFile(std::unique_ptr<File> base, RatedDevice* device) : base_(std::move(base)), device_(device) {}

  File* base() const { return base_.get(); }
  absl::Time Pass(uint64_t bytes) { return device_ == nullptr ? absl::InfinitePast() : device_->Pass(bytes); }

  bool stopped() const { return device_ != nullptr && device_->stopped(); }

  const std::string& path() const override { return base_->path(); }
  const IoAlignment& alignment() const override { return base_->alignment(); }
  absl::StatusOr<uint64_t> Size() const override { return base_->Size(); }
  int64_t PRead(uint64_t offset, std::span<std::byte> to) override {
    return Delayed(base_->PRead(offset, to), to.size());
  }
  int64_t PWrite(uint64_t offset, std::span<const std::byte> from) override {
    return Delayed(base_->PWrite(offset, from), from.size());
  }
  int64_t PReadCached(uint64_t offset, std::span<std::byte> to) override { return base_->PReadCached(offset, to); }
  int64_t PWriteCached(uint64_t offset, std::span<const std::byte> from) override {
    return base_->PWriteCached(offset, from);
  }
  absl::Status Sync() override { return base_->Sync(); }
  absl::Status Allocate(uint64_t size) override { return base_->Allocate(size); }
  absl::Status Truncate(uint64_t size) override { return base_->Truncate(size); }
  int direct_fd() const override { return -1; }

 private:
  int64_t Delayed(int64_t result, uint64_t bytes) {
    SleepUntil(Pass(bytes));
    while (stopped()) absl::SleepFor(kPoll);
    return result;
  }

  const std::unique_ptr<File> base_;
  RatedDevice* const device_;  // null: none of the directories
};

// The base moves the bytes at once; their completion is handed out when the device is done with them.
class RatedQueue : public IoQueue {
 public:
  explicit RatedQueue(std::unique_ptr<IoQueue> base) : base_(std::move(base)) {}

  size_t depth() const override { return base_->depth(); }
  size_t in_flight() const override { return due_.size(); }

  int Submit(std::span<IoOp* const> ops) override {
    int taken = 0;
    for (IoOp* op : ops) {
      if (due_.size() == depth()) break;
      const auto file = static_cast<RatedFile*>(op->file);
      IoOp inner = *op;
      inner.file = file->base();
      IoOp* const pointer = &inner;
      const int submitted = base_->Submit({&pointer, 1});
      if (submitted <= 0) return taken > 0 ? taken : submitted == 0 ? -EAGAIN : submitted;
      IoCompletion completion;
      while (base_->Reap(1, {&completion, 1}, -1) != 1) {
      }
      due_.emplace(file->Pass(op->length), IoCompletion{op, completion.result});
      ++taken;
    }
    return taken > 0 ? taken : -EAGAIN;
  }

  int Reap(size_t at_least, std::span<IoCompletion> completions, int64_t timeout_us) override {
    at_least = std::min({at_least, completions.size(), due_.size()});
    const absl::Time deadline = timeout_us < 0 ? absl::InfiniteFuture() : absl::Now() + absl::Microseconds(timeout_us);
    size_t count = 0;
    while (true) {
      const absl::Time now = absl::Now();
      absl::Time next = deadline;
      for (auto at = due_.begin(); at != due_.end() && count < completions.size();) {
        const bool stopped = static_cast<RatedFile*>(at->second.op->file)->stopped();
        if (stopped || at->first > now) {
          next = std::min(next, stopped ? now + kPoll : at->first);
          ++at;
          continue;
        }
        completions[count++] = at->second;
        at = due_.erase(at);
      }
      if (count >= at_least || now >= deadline) return static_cast<int>(count);
      SleepUntil(next);
    }
  }

 private:
  const std::unique_ptr<IoQueue> base_;
  std::multimap<absl::Time, IoCompletion> due_;  // all that is in flight
};

}  // namespace

void RatedDevice::SetRate(uint64_t bytes_per_s) {
  absl::MutexLock lock(&mutex_);
  rate_ = bytes_per_s;
  free_at_ = absl::InfinitePast();
}

absl::Time RatedDevice::Pass(uint64_t bytes) {
  absl::MutexLock lock(&mutex_);
  if (rate_ == 0) return absl::InfinitePast();
  free_at_ = std::max(free_at_, absl::Now()) + absl::Seconds(static_cast<double>(bytes) / static_cast<double>(rate_));
  return free_at_;
}

RateLimitedDisk::RateLimitedDisk(Disk* base, const std::vector<std::string>& directories) : base_(base) {
  for (const std::string& directory : directories) devices_.push_back(std::make_unique<RatedDevice>(directory));
}

void RateLimitedDisk::SetRate(const std::string& directory, uint64_t bytes_per_s) {
  Find(directory)->SetRate(bytes_per_s);
}

void RateLimitedDisk::SetStopped(const std::string& directory, bool stopped) { Find(directory)->SetStopped(stopped); }

RatedDevice* RateLimitedDisk::Find(const std::string& directory) const {
  const auto device =
      std::find_if(devices_.begin(), devices_.end(), [&](const auto& each) { return each->directory() == directory; });
  TS_CHECK(device != devices_.end());
  return device->get();
}

absl::StatusOr<std::unique_ptr<File>> RateLimitedDisk::Open(const std::string& path, const OpenOptions& options) {
  TS_ASSIGN_OR_RETURN(auto file, base_->Open(path, options));
  const auto device = std::find_if(devices_.begin(), devices_.end(),
                                   [&](const auto& each) { return path.rfind(each->directory() + "/", 0) == 0; });
  return std::make_unique<RatedFile>(std::move(file), device == devices_.end() ? nullptr : device->get());
}

absl::StatusOr<std::unique_ptr<IoQueue>> RateLimitedDisk::NewQueue(size_t depth) {
  TS_ASSIGN_OR_RETURN(auto queue, base_->NewQueue(depth));
  return std::make_unique<RatedQueue>(std::move(queue));
}

}  // namespace tensorshelf::testing
