// What the workers and the caller's thread of one engine share.

#ifndef TENSORSHELF_ENGINE_ENGINE_CONTEXT_H_
#define TENSORSHELF_ENGINE_ENGINE_CONTEXT_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "engine/foundation/latency_histogram.h"
#include "engine/io_engine.h"
#include "engine/transfer.h"
#include "engine/work_queue.h"

namespace tensorshelf {

// Thread-safe. Relaxed: each is a number of its own, nothing is concluded from two of them.
class IoCounters {
 public:
  void CountSubmitted(IoKind kind) {
    Add(kind == IoKind::kRead ? read_ops_ : write_ops_, 1);
    Add(in_flight_ops_, 1);
  }
  // One call for each CountSubmitted: the transfer came back, well or not.
  void CountReaped(IoKind kind, uint64_t nanoseconds) {
    in_flight_ops_.fetch_sub(1, std::memory_order_relaxed);
    (kind == IoKind::kRead ? read_latency_ : write_latency_).Record(nanoseconds);
  }
  void CountMoved(IoKind kind, uint64_t bytes, bool staged) {
    Add(kind == IoKind::kRead ? read_bytes_ : write_bytes_, bytes);
    if (staged) Add(staged_bytes_, bytes);
  }
  void CountResubmitted() { Add(resubmitted_ops_, 1); }
  void CountFailed() { Add(failed_ops_, 1); }

  IoEngineStats Read() const {
    return {.read_ops = read_ops_.load(std::memory_order_relaxed),
            .write_ops = write_ops_.load(std::memory_order_relaxed),
            .read_bytes = read_bytes_.load(std::memory_order_relaxed),
            .write_bytes = write_bytes_.load(std::memory_order_relaxed),
            .staged_bytes = staged_bytes_.load(std::memory_order_relaxed),
            .resubmitted_ops = resubmitted_ops_.load(std::memory_order_relaxed),
            .failed_ops = failed_ops_.load(std::memory_order_relaxed),
            .in_flight_ops = in_flight_ops_.load(std::memory_order_relaxed),
            .waiting_blocks = 0,
            .read_latency = read_latency_.Read(),
            .write_latency = write_latency_.Read()};
  }

 private:
  static void Add(std::atomic<uint64_t>& counter, uint64_t count) {
    counter.fetch_add(count, std::memory_order_relaxed);
  }

  std::atomic<uint64_t> read_ops_{0}, write_ops_{0};
  std::atomic<uint64_t> read_bytes_{0}, write_bytes_{0};
  std::atomic<uint64_t> staged_bytes_{0};
  std::atomic<uint64_t> resubmitted_ops_{0};
  std::atomic<uint64_t> failed_ops_{0};
  std::atomic<uint64_t> in_flight_ops_{0};
  LatencyHistogram read_latency_, write_latency_;
};

// How many buffers of the arena the transfers of one engine hold. Thread-safe. Relaxed: it only steers.
class BufferShare {
 public:
  void SetLimit(size_t limit) { limit_.store(limit, std::memory_order_relaxed); }
  bool spent() const { return held_.load(std::memory_order_relaxed) >= limit_.load(std::memory_order_relaxed); }
  void CountTaken() { held_.fetch_add(1, std::memory_order_relaxed); }
  void CountGivenBack() { held_.fetch_sub(1, std::memory_order_relaxed); }

 private:
  std::atomic<size_t> limit_{SIZE_MAX};
  std::atomic<size_t> held_{0};
};

struct EngineContext {
  EngineContext(Disk* disk, StagingArena* arena, const IoEngineOptions& options)
      : disk(disk), arena(arena), options(options) {}

  bool tracing() const { return options.trace != nullptr && options.trace->on(); }
  void Trace(const IoOp& op, uint64_t queued_ns, uint64_t submitted_ns, uint64_t ended_ns, int64_t result) const {
    TraceEvent event{.name = op.kind == IoKind::kRead ? "read" : "write",
                     .kind = TraceEvent::Kind::kTransfer,
                     .ok = result >= 0,
                     .lane = options.trace_lane,
                     .begin_ns = submitted_ns,
                     .end_ns = ended_ns,
                     .wait_ns = queued_ns == 0 ? 0 : submitted_ns - queued_ns,
                     .bytes = result > 0 ? static_cast<uint64_t>(result) : 0,
                     .offset = op.offset};
    event.set_subject(op.file->path());
    options.trace->Add(event);
  }

  absl::Duration retry_deadline() const { return absl::Milliseconds(options.retry_deadline_ms); }

  Disk* const disk;
  StagingArena* const arena;
  const IoEngineOptions options;
  WorkQueue work;
  IoCounters counters;
  BufferShare buffers;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_ENGINE_CONTEXT_H_
