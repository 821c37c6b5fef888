#include "engine/transfer.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/foundation/mutation.h"

namespace tensorshelf {
namespace {

std::string Describe(const IoOp& op) {
  return absl::StrCat(op.kind == IoKind::kRead ? "read" : "write", " of ", op.length, " bytes at ", op.offset, " of ",
                      op.file->path());
}

}  // namespace

Transfer::Transfer(IoKind kind, const IoBlock& block, std::byte* memory, absl::Duration retry_deadline)
    : begin_(block.offset), needed_(block.needed), retry_deadline_(retry_deadline) {
  const bool aligned = block.route != BlockRoute::kPageCache && block.file->alignment().direct;
  step_ = aligned ? block.file->alignment().offset : 1;
  // The zeros behind the last byte of a write have to arrive too.
  if (kind == IoKind::kWrite) needed_ = block.length;
  op_ = {.kind = kind, .file = block.file, .offset = block.offset, .memory = memory, .length = block.length};
}

Transfer::Next Transfer::Take(int64_t result) {
  if (result == -EINTR) return Next::kAgain;
  if (result == -EAGAIN) {
    const absl::Time now = absl::Now();
    if (busy_since_ == absl::InfinitePast()) busy_since_ = now;
    return now - busy_since_ < retry_deadline_ ? Next::kAgainLater : Failed(EAGAIN);
  }
  if (result < 0 && TS_MUTATE(ignore_transfer_error)) return Next::kDone;
  if (result < 0) return Failed(static_cast<int>(-result));
  if (result > op_.length) {
    status_ = absl::InternalError(absl::StrCat(Describe(op_), ": ", result, " bytes reported"));
    return Next::kFailed;
  }
  busy_since_ = absl::InfinitePast();
  const uint64_t end = op_.offset - begin_ + static_cast<uint64_t>(result);
  // Only a repeated op starts before the end of the last one, at the aligned boundary: one that gets no further than
  // the last has met the end of the file inside a sector.
  const bool advanced = end > moved_;
  if (advanced) moved_ = end;
  if (moved_ >= needed_ || TS_MUTATE(short_transfer_is_done)) return Next::kDone;
  if (!advanced) return EndedEarly();
  const uint64_t boundary = moved_ / step_ * step_;
  const uint64_t skipped = begin_ + boundary - op_.offset;
  op_.offset += skipped;
  op_.memory += skipped;
  op_.length -= static_cast<uint32_t>(skipped);
  return Next::kAgain;
}

Transfer::Next Transfer::Failed(int error_number) {
  status_ = IoError(error_number, Describe(op_));
  return Next::kFailed;
}

Transfer::Next Transfer::EndedEarly() {
  if (op_.kind == IoKind::kWrite) {
    status_ = absl::InternalError(absl::StrCat(Describe(op_), ": nothing was written"));
  } else {
    status_ = absl::DataLossError(absl::StrCat("end of file in ", op_.file->path(), ": wanted ", needed_, " bytes at ",
                                               begin_, ", got ", moved_));
  }
  return Next::kFailed;
}

}  // namespace tensorshelf
