#include "store/background_fill.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kStepBytes = uint64_t{16} << 20;
constexpr uint64_t kZeroBytes = uint64_t{4} << 20;
constexpr absl::Duration kStandBack = absl::Seconds(1);
constexpr absl::Duration kPause = absl::Milliseconds(200);  // between looks at whether the store is idle

}  // namespace

absl::Status FillWithZeros(DeviceSet& devices, DataFile& file, uint64_t from, uint64_t to) {
  TS_ASSIGN_OR_RETURN(MemoryPool::Piece zeros, devices.pool()->Allocate(std::min(kZeroBytes, to - from)));
  std::memset(zeros.data(), 0, zeros.size());
  std::vector<Segment> segments;
  for (uint64_t at = from; at < to; at += zeros.size()) {
    segments.push_back({.file = file.file.get(),
                        .offset = at,
                        .memory = zeros.data(),
                        .length = std::min<uint64_t>(zeros.size(), to - at)});
  }
  const std::vector<DataFile*> owners(segments.size(), &file);
  return devices.Transfer(IoKind::kWrite, Priority::kBackground, std::move(segments), owners).status;
}

BackgroundFill::BackgroundFill(DeviceSet* devices, ExtentAllocator* allocator, std::function<bool()> may_run)
    : devices_(devices), allocator_(allocator), may_run_(std::move(may_run)), thread_([this] { Loop(); }) {}

BackgroundFill::~BackgroundFill() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void BackgroundFill::StandBack() {
  {
    absl::MutexLock lock(&mutex_);
    not_before_ = absl::Now() + kStandBack;
  }
  absl::MutexLock step_lock(&step_mutex_);
}

// Takes what is free in the next region, zeros it and gives it back. What is not free there was written by a put.
bool BackgroundFill::Step(DataFile& file) {
  const uint64_t from = std::max(file.filled_until.load(), file.row.data_begin);
  if (from >= file.row.data_end || file.read_only.load() || file.draining.load()) return false;
  const uint64_t to = std::min(from + kStepBytes, file.row.data_end);
  const auto extents = allocator_->ReserveFreeIn(file.row.file_id, from / kUnitBytes, to / kUnitBytes);
  if (!extents.ok()) return false;
  absl::Status status;
  for (const Extent& extent : *extents) {
    if (status.ok()) status = FillWithZeros(*devices_, file, extent.offset(), extent.offset() + extent.bytes());
  }
  if (!extents->empty()) allocator_->Move(*extents, SpaceState::kReserved, SpaceState::kFree);
  if (!status.ok()) return false;  // a put that hits the same place will report it
  file.filled_until.store(to);
  return allocator_->SetFilled(file.row.file_id, to / kUnitBytes).ok();
}

void BackgroundFill::LookAgain() {
  absl::MutexLock lock(&mutex_);
  look_again_ = true;
}

void BackgroundFill::Loop() {
  while (true) {
    FillAll();
    absl::MutexLock lock(&mutex_);
    const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || look_again_; };
    mutex_.Await(absl::Condition(&has_work));
    if (stopping_) return;
    look_again_ = false;
  }
}

void BackgroundFill::FillAll() {
  for (DataFile* file : devices_->files()) {
    if (file->file == nullptr) continue;
    while (true) {
      {
        absl::MutexLock lock(&mutex_);
        if (stopping_) return;
        if (absl::Now() < not_before_ || !may_run_()) {
          mutex_.AwaitWithTimeout(absl::Condition(&stopping_), kPause);
          continue;
        }
      }
      absl::MutexLock step_lock(&step_mutex_);
      if (!Step(*file)) break;
    }
  }
}

}  // namespace tensorshelf
