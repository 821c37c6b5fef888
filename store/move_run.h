// What a long run of moves (a compaction, a device that leaves) does with the store: each call takes the store for
// itself, so that between two of them a close gets through.

#ifndef TENSORSHELF_STORE_MOVE_RUN_H_
#define TENSORSHELF_STORE_MOVE_RUN_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "index/index.h"
#include "store/move.h"

namespace tensorshelf {

inline constexpr size_t kMoveBatchObjects = 256;
inline constexpr uint64_t kMoveBatchBytes = uint64_t{16} << 20;  // in one commit, but for one larger object
inline constexpr size_t kDamageListed = 100;

struct MoveRun {
  // Visits every durable name with its record.
  std::function<absl::Status(const std::function<void(const ObjectCursor&)>& visit)> scan;
  // Calls `plan` with the object, leased, if the name still has that generation; false: it has not.
  std::function<absl::StatusOr<bool>(const std::string& name, uint64_t generation,
                                     const std::function<absl::Status(Object object)>& plan)>
      find;
  // As Mover::Run, behind everything else on the device. Cancelled when told to stop.
  std::function<absl::Status(std::span<PlannedMove> moves)> run;
  std::function<bool()> stop;
};

// Holds a stream of bytes to a rate, on average from the start. Confined to one thread.
class Throttle {
 public:
  // 0: no limit.
  Throttle(uint64_t rate_bytes_per_s, std::function<bool()> stop) : rate_(rate_bytes_per_s), stop_(std::move(stop)) {}

  // Returns when `bytes` more fit the rate; false: told to stop.
  bool Pass(uint64_t bytes) {
    bytes_ += bytes;
    while (!stop_()) {
      if (rate_ == 0) return true;
      const absl::Duration wanted = absl::Seconds(static_cast<double>(bytes_) / static_cast<double>(rate_));
      const absl::Duration ahead = wanted - (absl::Now() - started_);
      if (ahead <= absl::ZeroDuration()) return true;
      absl::SleepFor(std::min(ahead, absl::Milliseconds(20)));
    }
    return false;
  }

 private:
  const uint64_t rate_;
  const std::function<bool()> stop_;
  const absl::Time started_ = absl::Now();
  uint64_t bytes_ = 0;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_MOVE_RUN_H_
