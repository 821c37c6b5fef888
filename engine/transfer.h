// One transfer and how far it has come: what a short, failed or repeated result means. No I/O of its own; the worker
// submits what it asks for, and so does the caller's thread in the synchronous path.

#ifndef TENSORSHELF_ENGINE_TRANSFER_H_
#define TENSORSHELF_ENGINE_TRANSFER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "engine/disk.h"
#include "engine/plan.h"

namespace tensorshelf {

// Thread-compatible.
class Transfer {
 public:
  enum class Next : uint8_t {
    kDone,        // every needed byte has moved
    kAgain,       // submit op() once more
    kAgainLater,  // the same, after a pause: the device was busy
    kFailed,      // status() says why
  };

  Transfer() = default;
  // `memory` takes or gives block.length bytes.
  Transfer(IoKind kind, const IoBlock& block, std::byte* memory, absl::Duration retry_deadline);

  // What to submit next. Stays where it is; not to be touched while in flight.
  IoOp* op() { return &op_; }

  // `result` is what came of op(): bytes, possibly short, or a negative errno.
  Next Take(int64_t result);

  // Bytes from the start of the block that have moved.
  uint64_t moved() const { return moved_; }
  const absl::Status& status() const { return status_; }

 private:
  Next Failed(int error_number);
  Next EndedEarly();

  IoOp op_;
  uint64_t begin_ = 0;  // file offset of the block
  uint64_t step_ = 1;   // offsets of repeated ops are multiples of it
  uint64_t needed_ = 0;
  uint64_t moved_ = 0;
  absl::Duration retry_deadline_;
  absl::Time busy_since_ = absl::InfinitePast();
  absl::Status status_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_TRANSFER_H_
