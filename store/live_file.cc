#include "store/live_file.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "engine/worker_thread.h"
#include "store/shelf_files.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

constexpr int kReadTries = 50;  // of a page that is caught while it is written, which takes some microseconds
constexpr absl::Duration kClosingMax = absl::Seconds(2);
constexpr absl::Duration kPause = absl::Milliseconds(20);

absl::StatusOr<LivePage> ReadPage(Disk& disk, const std::string& path) {
  absl::StatusOr<LivePage> page;
  for (int attempt = 0; attempt < kReadTries; ++attempt) {
    TS_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(disk, path, kLivePageBytes));
    page = DecodeLivePage(BytesOf(bytes));
    if (!absl::IsDataLoss(page.status())) break;
  }
  return page;
}

std::string WhatIsLeft(const absl::StatusOr<LivePage>& page) {
  if (!page.ok()) return "";
  return absl::StrCat(" (its last writer was ", TextOf(page->header.holder), " and did not close it)");
}

}  // namespace

LiveFile::LiveFile(Options options) : options_(std::move(options)) {
  absl::Status status = Make();
  if (status.ok()) {
    auto thread = StartThread("shelf-counters", [this] { Loop(); });
    status = thread.status();
    if (thread.ok()) thread_ = *std::move(thread);
  }
  if (!status.ok()) GiveUp(status);
}

LiveFile::~LiveFile() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
  // An error leaves a stale file, which the next writer removes.
  if (file_ != nullptr) options_.disk->Remove(options_.path).IgnoreError();
}

absl::Status LiveFile::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

absl::Status LiveFile::Make() {
  absl::Status removed = options_.disk->Remove(options_.path);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  TS_ASSIGN_OR_RETURN(file_, options_.disk->Open(options_.path, {.writable = true, .create = true, .direct = false}));
  written_ = options_.sample();
  return Write();
}

absl::Status LiveFile::Write() {
  ++written_.header.sequence;
  written_.header.updated_ns = absl::ToUnixNanos(absl::Now());
  return WriteExactly(*file_, 0, BytesOf(EncodeLivePage(written_)));
}

void LiveFile::GiveUp(const absl::Status& status) {
  if (std::exchange(file_, nullptr) != nullptr) options_.disk->Remove(options_.path).IgnoreError();
  absl::MutexLock lock(&mutex_);
  status_ = status;
}

void LiveFile::Loop() {
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&stopping_), options_.every)) return;
    }
    LivePage page = options_.sample();
    page.header.sequence = written_.header.sequence;
    page.header.updated_ns = written_.header.updated_ns;
    if (std::memcmp(&page, &written_, sizeof page) == 0) continue;
    written_ = page;
    if (const absl::Status wrote = Write(); !wrote.ok()) return GiveUp(wrote);
  }
}

absl::StatusOr<LiveReading> ReadLive(Disk& disk, const std::string& path_of_shelf) {
  LiveReading reading;
  reading.shelf = AbsolutePath(path_of_shelf);
  const std::string& shelf = reading.shelf;
  TS_ASSIGN_OR_RETURN(reading.store_file, ReadStoreFile(disk, shelf));
  const std::string path = JoinPath(shelf, kCountersName);
  absl::StatusOr<std::string> holder = disk.LockHolder(JoinPath(shelf, kLockFileName));
  absl::StatusOr<LivePage> page = ReadPage(disk, path);
  // A writer that closes takes its counters away first and gives its lock back some time later.
  for (absl::Duration waited; holder.ok() && absl::IsNotFound(page.status()) && waited < kClosingMax;
       waited += kPause) {
    absl::SleepFor(kPause);
    holder = disk.LockHolder(JoinPath(shelf, kLockFileName));
    page = ReadPage(disk, path);
  }
  if (!holder.ok() && !absl::IsNotFound(holder.status())) return holder.status();
  if (!holder.ok()) {
    return absl::FailedPreconditionError(absl::StrCat("nobody writes to ", shelf, WhatIsLeft(page)));
  }
  const std::string begin = absl::StrCat("the writer of ", shelf, " (", *holder, ") shows no counters: ");
  if (!page.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(begin, path, ": ", std::string(page.status().message())));
  }
  if (page->header.store_uuid != reading.store_file.store_uuid) {
    return absl::FailedPreconditionError(absl::StrCat(begin, path, " is of another store"));
  }
  if (TextOf(page->header.holder) != holder->substr(0, page->header.holder.size())) {
    return absl::FailedPreconditionError(absl::StrCat(begin, path, " was left by ", TextOf(page->header.holder)));
  }
  reading.writer = *holder;
  reading.page = *page;
  return reading;
}

}  // namespace tensorshelf
