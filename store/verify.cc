// How verify works: Feeder walks the names and cuts objects into pieces; two Readers take windows of pieces, read each
// window with one call, and look closer at a window that fails: piece by piece, then block by block.
//
// Beside a live writer nothing protects the space of an object that is replaced while it is read. So before damage is
// reported, the name is looked up again after catching up: another generation means that the bytes were no longer its
// own.

#include "store/verify.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

constexpr size_t kReaderCount = 2;
constexpr size_t kNamesPerScan = 1024;
constexpr uint64_t kPieceBytes = uint64_t{8} << 20;
constexpr uint64_t kWindowStep = uint64_t{1} << 20;  // the largest checksum block
constexpr size_t kPiecesPerWindow = 4096;
constexpr size_t kKnownWholeCount = size_t{1} << 20;
constexpr absl::Duration kProgressInterval = absl::Milliseconds(100);

// One object while it is read. The reader that finishes its last piece judges it.
struct Subject {
  Object object;
  uint64_t generation = 0;
  uint64_t pieces_left = 0;  // guarded by the run's mutex
  std::atomic<bool> damaged{false};
  std::atomic<bool> changed{false};
};

struct Piece {
  std::shared_ptr<Subject> subject;
  uint64_t offset = 0, length = 0;
};

// Generations that were found whole lately, in bounded memory: a collision only costs a second reading. Confined to the
// holder of the run's mutex.
class KnownWhole {
 public:
  bool Contains(uint64_t generation) const { return slots_[Slot(generation)] == generation; }
  void Add(uint64_t generation) { slots_[Slot(generation)] = generation; }

 private:
  static size_t Slot(uint64_t generation) { return (generation * 0x9e3779b97f4a7c15u) >> 44; }
  static_assert(kKnownWholeCount == size_t{1} << (64 - 44));
  std::vector<uint64_t> slots_ = std::vector<uint64_t>(kKnownWholeCount);
};

// Errors that say nothing about one object but end the whole run.
bool EndsRun(const absl::Status& status) {
  const ErrorKind kind = KindOf(status);
  return kind == ErrorKind::kClosed || kind == ErrorKind::kForked || absl::IsResourceExhausted(status) ||
         absl::IsInvalidArgument(status);
}

// Under a rate limit at most an eighth of a second's worth, so that the limit holds over short times too.
uint64_t WindowBytes(const VerifyOptions& options) {
  if (options.rate_bytes_per_s == 0) return options.window_bytes;
  const uint64_t eighth = options.rate_bytes_per_s / 8 / kWindowStep * kWindowStep;
  return std::clamp(eighth, kWindowStep, std::max(options.window_bytes, kWindowStep));
}

class VerifyRun {
 public:
  VerifyRun(Store& store, const std::string& prefix, const VerifyOptions& options)
      : store_(store),
        prefix_(prefix),
        options_(options),
        window_bytes_(WindowBytes(options)),
        started_(absl::Now()),
        next_name_(prefix) {}

  absl::StatusOr<VerifyReport> Run();

 private:
  // Feeder.
  absl::Status CountAll();
  bool TakeWindow(std::vector<Piece>* window);
  absl::Status ListMoreLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void FindNextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CutLocked(Object object) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Readers.
  void ReadWindows();
  absl::Status ReadPieces(const std::vector<Piece>& window, std::byte* memory);
  void LookCloser(const Piece& piece, std::byte* memory);
  void Finish(const std::vector<Piece>& window);
  void Throttle(uint64_t bytes);
  bool ChangedSince(const Object& object);
  void Report(const std::string& name, uint64_t generation, const absl::Status& status);
  void End(const absl::Status& status);

  void ShowProgress();

  Store& store_;
  const std::string prefix_;
  const VerifyOptions& options_;
  const uint64_t window_bytes_;
  const absl::Time started_;

  absl::Mutex report_mutex_;  // held around on_damage; taken without mutex_

  absl::Mutex mutex_;
  std::string next_name_ ABSL_GUARDED_BY(mutex_);  // where the next listing starts
  bool listed_all_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::string> names_ ABSL_GUARDED_BY(mutex_);
  std::deque<Piece> pieces_ ABSL_GUARDED_BY(mutex_);
  KnownWhole known_whole_ ABSL_GUARDED_BY(mutex_);
  VerifyReport report_ ABSL_GUARDED_BY(mutex_);
  uint64_t names_total_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_total_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_done_ ABSL_GUARDED_BY(mutex_) = 0;      // as bytes_read, with the bytes of shared names
  uint64_t bytes_admitted_ ABSL_GUARDED_BY(mutex_) = 0;  // by the rate limit
  absl::Status end_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  size_t readers_left_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::Status VerifyRun::CountAll() {
  uint64_t names = 0, bytes = 0;
  std::string start = prefix_;
  while (true) {
    std::vector<std::string> listed;
    TS_RETURN_IF_ERROR(store_.Scan(prefix_, start, [&](const std::string& name, uint64_t) {
      listed.push_back(name);
      return listed.size() < kNamesPerScan;
    }));
    for (const std::string& name : listed) {
      const absl::StatusOr<Object> object = store_.Find(name);
      if (object.ok()) bytes += object->size_bytes();
    }
    names += listed.size();
    if (listed.size() < kNamesPerScan) break;
    start = listed.back() + '\0';
  }
  absl::MutexLock lock(&mutex_);
  names_total_ = names;
  bytes_total_ = bytes;
  return absl::OkStatus();
}

absl::Status VerifyRun::ListMoreLocked() {
  size_t count = 0;
  TS_RETURN_IF_ERROR(
      store_.Scan(prefix_, next_name_, [&](const std::string& name, uint64_t) ABSL_NO_THREAD_SAFETY_ANALYSIS {
        names_.push_back(name);
        return ++count < kNamesPerScan;
      }));
  listed_all_ = count < kNamesPerScan;
  if (count > 0) next_name_ = names_.back() + '\0';
  return absl::OkStatus();
}

void VerifyRun::CutLocked(Object object) {
  auto subject = std::make_shared<Subject>();
  subject->object = std::move(object);
  subject->generation = subject->object.record().generation;
  const uint64_t size = subject->object.size_bytes();
  // A multiple of the largest block, so that no block is read twice.
  const uint64_t piece_bytes = std::min(kPieceBytes, window_bytes_);
  subject->pieces_left = std::max<uint64_t>(1, (size + piece_bytes - 1) / piece_bytes);
  uint64_t offset = 0;
  do {
    const uint64_t length = std::min(piece_bytes, size - offset);
    pieces_.push_back({subject, offset, length});
    offset += length;
  } while (offset < size);
}

// Turns the first listed name into pieces, or into a finding.
void VerifyRun::FindNextLocked() {
  const std::string name = std::move(names_.front());
  names_.pop_front();
  ++report_.names;
  absl::StatusOr<Object> object = store_.Find(name);
  // A record that disappears between the two steps of a lookup looks like damage until the writer's next commit is
  // seen.
  if (absl::IsDataLoss(object.status()) && store_.CatchUp().ok()) object = store_.Find(name);
  if (object.ok()) {
    if (known_whole_.Contains(object->record().generation)) {
      ++report_.shared_names;
      bytes_done_ += object->size_bytes();
      return;
    }
    CutLocked(*std::move(object));
    return;
  }
  if (EndsRun(object.status())) {
    end_.Update(object.status());
    return;
  }
  if (absl::IsNotFound(object.status())) {
    ++report_.changed_names;  // deleted since it was listed
    return;
  }
  ++report_.damaged_names;
  mutex_.Unlock();
  Report(name, 0, object.status());
  mutex_.Lock();
}

// The next pieces for one reading call, at most window_bytes; false at the end.
bool VerifyRun::TakeWindow(std::vector<Piece>* window) {
  absl::MutexLock lock(&mutex_);
  uint64_t bytes = 0;
  while (end_.ok() && !stop_) {
    if (!pieces_.empty()) {
      const bool fits =
          window->empty() || (bytes + pieces_.front().length <= window_bytes_ && window->size() < kPiecesPerWindow);
      if (!fits) break;
      bytes += pieces_.front().length;
      window->push_back(std::move(pieces_.front()));
      pieces_.pop_front();
    } else if (!names_.empty()) {
      FindNextLocked();
    } else if (!listed_all_) {
      end_.Update(ListMoreLocked());
    } else {
      break;
    }
  }
  return end_.ok() && !stop_ && !window->empty();
}

absl::Status VerifyRun::ReadPieces(const std::vector<Piece>& window, std::byte* memory) {
  std::vector<ReadRequest> requests;
  requests.reserve(window.size());
  for (const Piece& piece : window) {
    requests.push_back({&piece.subject->object, piece.offset, {memory, piece.length}});
    // Each piece on a boundary that transfers need no copy for.
    memory += (piece.length + kUnitBytes - 1) / kUnitBytes * kUnitBytes;
  }
  return store_.Read(requests, {.verify = true, .priority = Priority::kBackground});
}

// Waits until the rate allows `bytes` more.
void VerifyRun::Throttle(uint64_t bytes) {
  if (options_.rate_bytes_per_s == 0) return;
  absl::MutexLock lock(&mutex_);
  bytes_admitted_ += bytes;
  const absl::Duration due = absl::Seconds(static_cast<double>(bytes_admitted_) / options_.rate_bytes_per_s);
  mutex_.AwaitWithDeadline(absl::Condition(&stop_), started_ + due);
}

// True when the object was replaced or moved: a reader in another process holds no lease, and the place may hold other
// bytes by now.
bool VerifyRun::ChangedSince(const Object& object) {
  if (!store_.CatchUp().ok()) return false;
  const absl::StatusOr<Object> now = store_.Find(object.name());
  if (absl::IsNotFound(now.status())) return true;
  return now.ok() && (now->record().generation != object.record().generation ||
                      now->record().place_seq != object.record().place_seq);
}

void VerifyRun::Report(const std::string& name, uint64_t generation, const absl::Status& status) {
  VerifyDamage damage;
  damage.name = name;
  damage.generation = generation;
  damage.kind = KindOf(status);
  damage.message = std::string(status.message());
  if (const std::optional<CorruptionInfo> info = CorruptionOf(status)) {
    damage.kind = ErrorKind::kCorruption;
    damage.block = info->block;
    damage.file = info->file;
    damage.offset = info->offset;
  }
  absl::MutexLock reporting(&report_mutex_);
  {
    absl::MutexLock lock(&mutex_);
    ++report_.damage_count;
  }
  if (options_.on_damage) options_.on_damage(damage);
}

// One piece whose window failed: block by block, so that every damaged block is listed.
void VerifyRun::LookCloser(const Piece& piece, std::byte* memory) {
  Subject& subject = *piece.subject;
  absl::Status status = ReadPieces({piece}, memory);
  if (status.ok()) return;
  if (EndsRun(status)) return End(status);
  if (KindOf(status) == ErrorKind::kStale || ChangedSince(subject.object)) {
    subject.changed = true;
    return;
  }
  bool found = false;
  const uint64_t block_bytes = subject.object.record().block_bytes();
  for (uint64_t offset = piece.offset; offset < piece.offset + piece.length; offset += block_bytes) {
    const uint64_t length = std::min(block_bytes, piece.offset + piece.length - offset);
    const absl::Status block = ReadPieces({{piece.subject, offset, length}}, memory);
    if (block.ok()) continue;
    if (KindOf(block) == ErrorKind::kStale) {
      subject.changed = true;
      return;
    }
    Report(subject.object.name(), subject.generation, block);
    found = true;
    // Without a device or with an unreadable record every block says the same.
    if (!CorruptionOf(block).has_value() && !absl::IsInternal(block)) break;
  }
  // Damage that went away by itself is still damage: the first reading failed.
  if (!found) Report(subject.object.name(), subject.generation, status);
  subject.damaged = true;
}

void VerifyRun::Finish(const std::vector<Piece>& window) {
  absl::MutexLock lock(&mutex_);
  for (const Piece& piece : window) {
    report_.bytes_read += piece.length;
    bytes_done_ += piece.length;
    Subject& subject = *piece.subject;
    if (--subject.pieces_left > 0) continue;
    ++report_.objects_read;
    if (subject.damaged) {
      ++report_.damaged_names;
    } else if (subject.changed) {
      ++report_.changed_names;
    } else {
      known_whole_.Add(subject.generation);
    }
  }
}

void VerifyRun::End(const absl::Status& status) {
  absl::MutexLock lock(&mutex_);
  end_.Update(status);
}

void VerifyRun::ReadWindows() {
  // Pieces are laid out in whole units: a window of many small objects needs more room than their bytes.
  absl::StatusOr<MemoryPool::Piece> memory =
      store_.memory_pool()->Allocate(window_bytes_ + kPiecesPerWindow * kUnitBytes);
  if (!memory.ok()) End(memory.status());
  std::vector<Piece> window;
  while (memory.ok() && TakeWindow(&window)) {
    uint64_t bytes = 0;
    for (const Piece& piece : window) bytes += piece.length;
    Throttle(bytes);
    const absl::Status status = ReadPieces(window, memory->data());
    if (!status.ok()) {
      if (EndsRun(status)) End(status);
      for (const Piece& piece : window) LookCloser(piece, memory->data());
    }
    Finish(window);
    window.clear();
  }
  absl::MutexLock lock(&mutex_);
  --readers_left_;
}

void VerifyRun::ShowProgress() {
  if (!options_.progress) return;
  VerifyProgress progress;
  {
    absl::MutexLock lock(&mutex_);
    progress = {bytes_done_, bytes_total_, report_.names, names_total_, report_.damage_count};
  }
  options_.progress(progress);
}

absl::StatusOr<VerifyReport> VerifyRun::Run() {
  if (options_.window_bytes < kWindowStep || options_.window_bytes % kWindowStep != 0) {
    return absl::InvalidArgumentError(absl::StrCat("window_bytes is ", options_.window_bytes, ", not whole MiB"));
  }
  const uint64_t commit = store_.info().commit;
  if (options_.progress) TS_RETURN_IF_ERROR(CountAll());
  {
    absl::MutexLock lock(&mutex_);
    report_.commit = commit;
    readers_left_ = kReaderCount;
  }
  std::vector<std::thread> readers;
  for (size_t i = 0; i < kReaderCount; ++i) readers.emplace_back([this] { ReadWindows(); });
  const auto all_done = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return readers_left_ == 0; };
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (mutex_.AwaitWithTimeout(absl::Condition(&all_done), kProgressInterval)) break;
    }
    ShowProgress();
    if (options_.stop && options_.stop()) {
      absl::MutexLock lock(&mutex_);
      stop_ = true;
      report_.stopped = true;
    }
  }
  for (std::thread& reader : readers) reader.join();
  ShowProgress();
  absl::MutexLock lock(&mutex_);
  TS_RETURN_IF_ERROR(end_);
  return report_;
}

}  // namespace

absl::StatusOr<VerifyReport> VerifyStore(Store& store, const std::string& prefix, const VerifyOptions& options) {
  return VerifyRun(store, prefix, options).Run();
}

}  // namespace tensorshelf
