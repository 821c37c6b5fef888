#include "store/operation_meters.h"

namespace tensorshelf {

const char* NameOf(Operation operation) {
  static constexpr std::array<const char*, kOperationCount> kNames = {
      "put", "get", "slice", "find", "delete", "names", "commit", "sync", "index_write"};
  return kNames[static_cast<size_t>(operation)];
}

void OperationMeters::Trace(const char* name, uint64_t begun_ns, bool ok, uint64_t items, uint64_t bytes,
                            const std::string* subject) {
  TraceEvent event{.name = name,
                   .ok = ok,
                   .lane = TraceLog::ThreadLane(),
                   .begin_ns = begun_ns,
                   .end_ns = SteadyNanoseconds(),
                   .items = items,
                   .bytes = bytes};
  if (subject != nullptr) event.set_subject(*subject);
  trace_->Add(event);
}

OperationCounts OperationMeters::Read(Operation operation) const {
  const Meter& meter = meters_[static_cast<size_t>(operation)];
  OperationCounts counts{.calls = meter.calls.load(std::memory_order_relaxed),
                         .items = meter.items_beyond_calls.load(std::memory_order_relaxed),
                         .bytes = meter.bytes.load(std::memory_order_relaxed),
                         .errors = meter.errors.load(std::memory_order_relaxed),
                         .latency = meter.latency.Read()};
  counts.items += counts.calls;
  return counts;
}

}  // namespace tensorshelf
