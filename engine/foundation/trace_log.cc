#include "engine/foundation/trace_log.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/foundation/latency_histogram.h"

namespace tensorshelf {

void TraceEvent::set_subject(const std::string& text) {
  size_t from = text.size() < kSubjectBytes ? 0 : text.size() - (kSubjectBytes - 1);
  // Not in the middle of a character.
  while (from > 0 && from < text.size() && (static_cast<unsigned char>(text[from]) & 0xc0) == 0x80) ++from;
  std::memset(subject, 0, kSubjectBytes);
  std::memcpy(subject, text.data() + from, text.size() - from);
}

bool TraceLog::Start(size_t events_max) {
  absl::MutexLock lock(&mutex_);
  if (on()) return false;
  events_max_ = std::max<size_t>(events_max, 1);
  added_count_ = 0;
  begun_ns_ = SteadyNanoseconds();
  on_.store(true, std::memory_order_relaxed);
  return true;
}

Trace TraceLog::Stop() {
  absl::MutexLock lock(&mutex_);
  on_.store(false, std::memory_order_relaxed);
  Trace trace{.events = std::exchange(ring_, {}), .begun_ns = begun_ns_, .ended_ns = SteadyNanoseconds()};
  if (added_count_ > trace.events.size()) {
    trace.forgotten_count = added_count_ - trace.events.size();
    const auto oldest = trace.events.begin() + static_cast<ptrdiff_t>(added_count_ % events_max_);
    std::rotate(trace.events.begin(), oldest, trace.events.end());
  }
  return trace;
}

void TraceLog::Add(const TraceEvent& event) {
  absl::MutexLock lock(&mutex_);
  if (!on()) return;
  if (ring_.size() < events_max_) {
    ring_.push_back(event);
  } else {
    ring_[added_count_ % events_max_] = event;
  }
  ++added_count_;
}

uint32_t TraceLog::ThreadLane() { return static_cast<uint32_t>(syscall(SYS_gettid)); }

}  // namespace tensorshelf
