// Moves bytes between memory and files: a few workers, each with its own queue; lists of segments in, one completion
// out.
//
//   Submit(batch) -> plan: large segments are cut into blocks of io_size that all workers share; runs of small segments
//   that
//                    touch in the file become one block ("gathered"); small blocks overtake large ones
//                 -> worker: staging copy and sums while the bytes are in cache, submit, reap, finish short transfers
//                 -> done(result), when nothing of the batch is in flight any more
//
// The engine knows no names, shapes, records or tiers.

#ifndef TENSORSHELF_ENGINE_IO_ENGINE_H_
#define TENSORSHELF_ENGINE_IO_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/disk.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/latency_histogram.h"
#include "engine/foundation/trace_log.h"
#include "engine/memory.h"

namespace tensorshelf {

// What lies behind the last byte of a segment in its file.
enum class SegmentEdge : uint8_t {
  // The rest of the last 4 KiB unit belongs to the segment: writes fill it with zeros, reads may fetch and drop it.
  // `offset` is a multiple of 4096. The store's data files.
  kOwnsUnit,
  // Nothing outside [offset, offset + length) may be touched; any offset and length. Plain external files. The aligned
  // middle goes direct, an unaligned head and tail through the page cache; two segments in flight may share a sector.
  kExact,
};

// One run of bytes, contiguous in a file and in memory.
struct Segment {
  File* file = nullptr;
  uint64_t offset = 0;          // bytes, in the file
  std::byte* memory = nullptr;  // any alignment; not written to when the batch writes
  uint64_t length = 0;          // bytes; 0 is legal and does nothing
  SegmentEdge edge = SegmentEdge::kOwnsUnit;
  // If not null: receives the XXH3-128 of each `sum_block` bytes of the segment (the last block its real bytes only),
  // that is ceil(length / sum_block) values. Written before done() is called.
  Sum128* sums = nullptr;
  uint32_t sum_block = 65536;  // bytes, a power of two, 4096 .. 1 MiB
};

// Who goes first where transfers wait for a device; nobody is shut out (engine/work_queue.h). kForeground is the normal
// one.
enum class Priority : uint8_t { kHigh, kForeground, kBackground };

struct BatchResult {
  absl::Status status;        // of the first segment that failed; OK only if every byte moved
  size_t failed_segment = 0;  // its index in the batch, when not OK
};

struct Batch {
  IoKind kind = IoKind::kRead;
  Priority priority = Priority::kForeground;
  std::vector<Segment> segments;
  // Called exactly once, from a worker thread (or from Submit when there is nothing to do or a segment is refused),
  // after the last transfer of the batch has been reaped. Must not block and must not submit and wait. Not used by Run.
  std::function<void(const BatchResult&)> done;
};

// Counters since construction, all monotonic but the two of this moment.
struct IoEngineStats {
  uint64_t read_ops = 0, write_ops = 0;  // transfers submitted to the device
  uint64_t read_bytes = 0, write_bytes = 0;
  uint64_t staged_bytes = 0;     // of those, copied through the arena
  uint64_t resubmitted_ops = 0;  // short or EAGAIN
  uint64_t failed_ops = 0;
  uint64_t in_flight_ops = 0;                 // at this moment: submitted, not reaped
  uint64_t waiting_blocks = 0;                // at this moment: not submitted yet
  LatencyCounts read_latency, write_latency;  // of transfers, from submitting to reaping
};

struct IoEngineOptions {
  size_t worker_count = 2;
  size_t queue_depth = 32;               // transfers in flight per worker
  uint64_t io_size = uint64_t{1} << 20;  // bytes; also the staging buffer size
  // A segment below this size overtakes large ones and is gathered with its neighbours in the file (not where it has 64
  // KiB and more and needs no copy). At most io_size.
  uint64_t small_size = uint64_t{256} << 10;
  // How long EAGAIN from io_submit (fs.aio-max-nr) or from a device is retried before it is an error.
  int64_t retry_deadline_ms = 10000;
  // Takes an event for each transfer while it records. Not owned; null: none.
  TraceLog* trace = nullptr;
  uint32_t trace_lane = 0;  // of those events
};

// Thread-safe.
class IoEngine {
 public:
  // `disk` and `arena` must outlive the engine; arena->buffer_size() is at least io_size.
  static absl::StatusOr<std::unique_ptr<IoEngine>> Create(Disk* disk, StagingArena* arena,
                                                          const IoEngineOptions& options);
  // Finishes everything submitted, then joins the workers.
  ~IoEngine();

  // Never blocks on I/O. Memory, files and sums arrays of the batch belong to the engine until done() is called.
  // A write whose memory was handed to the device in place (no staging copy) and has sums is hashed again afterwards;
  // a change in between fails the batch with Aborted.
  void Submit(Batch batch);

  // Submit and wait; a batch that comes to one small transfer is moved in the calling thread. Not to be called while
  // holding staging buffers that the transfers may need.
  BatchResult Run(Batch batch);

  // fdatasync of each file, in parallel; status of the i-th file at position i.
  std::vector<absl::Status> Sync(const std::vector<File*>& files);

  // How many staging buffers the transfers of this engine may hold at a time, so that a slow device does not keep all
  // of an arena that it shares; each worker may have one more. No limit at first.
  void LimitBuffers(size_t buffer_count_max);

  IoEngineStats stats() const;
  const IoEngineOptions& options() const;

 private:
  struct State;
  explicit IoEngine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_IO_ENGINE_H_
