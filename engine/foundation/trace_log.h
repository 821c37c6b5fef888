// What happened in a period, for somebody who wants to see where the time went: operations of the store and transfers
// of its devices, each with when it began and ended. Bounded: a full log forgets its oldest events.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_TRACE_LOG_H_
#define TENSORSHELF_ENGINE_FOUNDATION_TRACE_LOG_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace tensorshelf {

struct TraceEvent {
  enum class Kind : uint8_t { kOperation, kTransfer };
  static constexpr size_t kSubjectBytes = 40;

  const char* name = "";  // of static storage
  Kind kind = Kind::kOperation;
  bool ok = true;
  uint32_t lane = 0;                  // the kernel's number of the thread; of a transfer, the position of its device
  uint64_t begin_ns = 0, end_ns = 0;  // SteadyNanoseconds()
  uint64_t wait_ns = 0;               // before begin_ns, in the queue; transfers only
  uint64_t items = 0;                 // objects
  uint64_t bytes = 0;
  uint64_t offset = 0;               // in its file; transfers only
  char subject[kSubjectBytes] = {};  // the end of what it was about, as text with a 0 behind it

  void set_subject(const std::string& text);
};

struct Trace {
  std::vector<TraceEvent> events;  // in the order in which they ended
  uint64_t forgotten_count = 0;    // older ones, for which there was no room
  uint64_t begun_ns = 0, ended_ns = 0;
};

// Thread-safe. While nothing is recorded it costs whoever asks on() one load, and holds no memory.
class TraceLog {
 public:
  bool on() const { return on_.load(std::memory_order_relaxed); }

  // Records from here on. False: it does already. `events_max` is at least 1.
  bool Start(size_t events_max);
  // Ends it and hands over what was recorded. Only after Start.
  Trace Stop();

  // Dropped when nothing is recorded.
  void Add(const TraceEvent& event);

  // Of the calling thread, for TraceEvent::lane.
  static uint32_t ThreadLane();

 private:
  std::atomic<bool> on_{false};  // written under the mutex; who asks without it may be late, and Add asks again
  absl::Mutex mutex_;            // a leaf
  std::vector<TraceEvent> ring_ ABSL_GUARDED_BY(mutex_);
  size_t events_max_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t added_count_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t begun_ns_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_TRACE_LOG_H_
