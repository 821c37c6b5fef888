// What went wrong, for callers that must tell cases apart: a kind that rides on the status as a payload, beside the
// code and the message. One mapping to Python exceptions stands on this (python/bindings/errors.h).
//
//   code                 kinds                                   meaning
//   NotFound             -                                       no such name, store, device or backup
//   InvalidArgument      -                                       bad name, shape, dtype, size or option
//   AlreadyExists        -                                       the store, or a name that the call must not replace
//   FailedPrecondition   locked | read_only | closed | forked | precondition | device_missing | lost_commits | latched
//   ResourceExhausted    full | index_full                       no space in the data files, or for the index
//   DataLoss             corruption, or none                     bytes that do not match their sums; damaged structures
//   Aborted              changed | stale                         the caller's memory, or the object, changed meanwhile
//   Internal             -                                       EIO and other device errors

#ifndef TENSORSHELF_STORE_ERRORS_H_
#define TENSORSHELF_STORE_ERRORS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace tensorshelf {

enum class ErrorKind {
  kNone,
  kLocked,         // another process writes this store
  kReadOnly,       // opened for reading, or a file system that is
  kClosed,         // used after Close
  kForked,         // used in a child of the process that opened it
  kPrecondition,   // if_absent, if_exists or if_generation did not hold
  kDeviceMissing,  // the object lies on a device that is not there
  kLostCommits,    // the index does not hold commits that were acknowledged
  kLatched,        // an error with unknown outcome made the store read-only until it is opened again
  kFull,           // data files
  kIndexFull,      // the index's file system
  kCorruption,     // see CorruptionInfo
  kChanged,        // memory changed while it was being written
  kStale,          // beside a live writer: the object was replaced while it was read; find it again
};

absl::Status MakeError(absl::StatusCode code, ErrorKind kind, const std::string& message);
ErrorKind KindOf(const absl::Status& status);

// Where bytes did not match. `block` counts checksum blocks of the object from 0; `offset` is in the file, bytes.
struct CorruptionInfo {
  std::string name = "";
  uint64_t block = 0;
  std::string file = "";
  uint64_t offset = 0;
};
absl::Status MakeCorruption(const CorruptionInfo& info, const std::string& message);
std::optional<CorruptionInfo> CorruptionOf(const absl::Status& status);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_ERRORS_H_
