// What a store does with its trace log: it gives the events the names of what they are about.

#include <utility>

#include "store/store_core.h"
#include "store/trace_text.h"
#include "store/uuid.h"

namespace tensorshelf {

absl::Status StoreCore::StartTrace(size_t events_max) {
  absl::ReaderMutexLock lock(&lifecycle_);
  if (absl::Status status = CheckUsable(); !status.ok()) return status;
  if (events_max == 0) return absl::InvalidArgumentError("a trace of no events");
  absl::MutexLock trace_lock(&trace_mutex_);
  if (!trace_.Start(events_max)) return absl::FailedPreconditionError("a trace is being recorded already");
  return absl::OkStatus();
}

// Also of a store that is closed by now: the period may have ended with it.
absl::StatusOr<std::string> StoreCore::StopTrace() {
  if (forked()) return absl::FailedPreconditionError("the trace belongs to the parent of this process");
  absl::ReaderMutexLock lock(&lifecycle_);
  absl::MutexLock trace_lock(&trace_mutex_);
  if (!trace_.on()) return absl::FailedPreconditionError("no trace is being recorded");
  const Trace trace = trace_.Stop();
  TraceSource source{.store = path_, .pid = static_cast<uint32_t>(pid_), .devices = {}};
  for (const Uuid& uuid : devices_->uuids()) {
    const auto tier = tiers_.find(uuid);
    source.devices.push_back((tier == tiers_.end() ? "device" : tier->second) + " " + UuidText(uuid));
  }
  return ChromeTrace(trace, source);
}

}  // namespace tensorshelf
