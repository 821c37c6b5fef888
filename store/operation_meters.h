// Counts and latencies of what an open store does, by operation.

#ifndef TENSORSHELF_STORE_OPERATION_METERS_H_
#define TENSORSHELF_STORE_OPERATION_METERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "engine/foundation/latency_histogram.h"
#include "engine/foundation/trace_log.h"

namespace tensorshelf {

// The numbers are those of the page (store/live_page.h): new ones come at the end.
enum class Operation : uint32_t {
  kPut,         // a transaction with puts, from staging the first to the end of its commit, without what lies between
  kGet,         // a read of whole objects
  kSlice,       // a read with a part of an object in it
  kFind,        // a lookup of a name
  kDelete,      // a transaction that only deletes
  kNames,       // any other transaction without puts: renames, clones
  kCommit,      // a group of transactions, by the commit thread
  kSync,        // fdatasync of the files that a commit touched, in parallel
  kIndexWrite,  // a synced batch of the index
};
inline constexpr size_t kOperationCount = 9;

// "put", "index_write"
const char* NameOf(Operation operation);

struct OperationCounts {
  uint64_t calls = 0;     // that succeeded
  uint64_t items = 0;     // objects; of a commit transactions, of a sync files, of an index write 1
  uint64_t bytes = 0;     // of tensors; of an index write, of its batch
  uint64_t errors = 0;    // calls that failed; nothing else is counted of them
  LatencyCounts latency;  // its count is that of the calls, or near it where calls were sampled
};

// Thread-safe and lock-free; relaxed, as LatencyHistogram.
class OperationMeters {
 public:
  void Count(Operation operation, uint64_t items, uint64_t bytes) {
    Meter& meter = meters_[static_cast<size_t>(operation)];
    meter.calls.fetch_add(1, std::memory_order_relaxed);
    if (items != 1) meter.items_beyond_calls.fetch_add(items - 1, std::memory_order_relaxed);
    if (bytes > 0) meter.bytes.fetch_add(bytes, std::memory_order_relaxed);
  }
  // Besides Count, for each call or for a sample of them.
  void Time(Operation operation, uint64_t nanoseconds, uint64_t weight = 1) {
    meters_[static_cast<size_t>(operation)].latency.Record(nanoseconds, weight);
  }
  uint64_t calls(Operation operation) const {
    return meters_[static_cast<size_t>(operation)].calls.load(std::memory_order_relaxed);
  }
  void CountError(Operation operation) {
    meters_[static_cast<size_t>(operation)].errors.fetch_add(1, std::memory_order_relaxed);
  }

  OperationCounts Read(Operation operation) const;

  // Takes what is timed here while it records. Not owned. Before the first operation.
  void set_trace(TraceLog* trace) { trace_ = trace; }
  bool tracing() const { return trace_ != nullptr && trace_->on(); }
  // While tracing() was true. `subject`: the first name that it was about, or null.
  void Trace(const char* name, uint64_t begun_ns, bool ok, uint64_t items, uint64_t bytes, const std::string* subject);

 private:
  // A line of its own for what is written together; the buckets follow.
  struct alignas(64) Meter {
    // Most calls are about one object, so that this is seldom written. Less than one is added modulo 2^64.
    std::atomic<uint64_t> items_beyond_calls{0};
    std::atomic<uint64_t> calls{0};
    std::atomic<uint64_t> bytes{0}, errors{0};
    LatencyHistogram latency;
  };
  std::array<Meter, kOperationCount> meters_;
  TraceLog* trace_ = nullptr;
};

// Counts and times one operation from here on. Confined to one thread.
class OperationTimer {
 public:
  OperationTimer(OperationMeters& meters, Operation operation) : OperationTimer(meters, operation, 1) {}

  // For what takes a microsecond, where reading the clock twice is felt: after the first kTimedFirst calls one in
  // kSampleEvery is timed, and stands for as many.
  static OperationTimer Sampling(OperationMeters& meters, Operation operation) {
    const uint64_t before = meters.calls(operation);
    const uint64_t weight = before < kTimedFirst ? 1 : before % kSampleEvery == 0 ? kSampleEvery : 0;
    return OperationTimer(meters, operation, weight);
  }

  // `subject`, for a trace: the first name that it was about.
  void End(const absl::Status& status, uint64_t items, uint64_t bytes, const std::string* subject = nullptr) {
    if (traced_) meters_.Trace(NameOf(operation_), begun_ns_, status.ok(), items, bytes, subject);
    if (!status.ok()) return meters_.CountError(operation_);
    if (weight_ > 0) meters_.Time(operation_, SteadyNanoseconds() - begun_ns_, weight_);
    meters_.Count(operation_, items, bytes);
  }

 private:
  static constexpr uint64_t kTimedFirst = 64;
  static constexpr uint64_t kSampleEvery = 16;

  OperationTimer(OperationMeters& meters, Operation operation, uint64_t weight)
      : meters_(meters),
        operation_(operation),
        weight_(weight),
        traced_(meters.tracing()),
        begun_ns_(weight > 0 || traced_ ? SteadyNanoseconds() : 0) {}

  OperationMeters& meters_;
  const Operation operation_;
  const uint64_t weight_;  // 0: not timed
  const bool traced_;
  const uint64_t begun_ns_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_OPERATION_METERS_H_
