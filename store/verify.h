// Reads everything under a prefix and compares it with its sums, in bounded memory, and goes on after damage.

#ifndef TENSORSHELF_STORE_VERIFY_H_
#define TENSORSHELF_STORE_VERIFY_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "store/store.h"

namespace tensorshelf {

// One damaged block, or one object that cannot be read at all.
struct VerifyDamage {
  std::string name;
  uint64_t generation = 0;
  // kCorruption: bytes that do not match their sums; the place is known. Else: why it cannot be read (kDeviceMissing,
  // kNone for device errors and damaged records).
  ErrorKind kind = ErrorKind::kNone;
  uint64_t block = 0;   // checksum blocks of the object, from 0
  std::string file;     // path; empty: in the index, or unknown
  uint64_t offset = 0;  // in the file, bytes
  std::string message;
};

struct VerifyProgress {
  uint64_t bytes_done = 0, bytes_total = 0;  // total 0: not counted
  uint64_t names_done = 0, names_total = 0;
  uint64_t damage_count = 0;
};

struct VerifyOptions {
  uint64_t rate_bytes_per_s = 0;  // 0: as fast as the devices allow
  // Bytes read in one call; two calls are in flight, each with memory of this size.
  uint64_t window_bytes = uint64_t{64} << 20;
  // Called from the calling thread about ten times a second, and once at the end. Set: names and bytes are counted
  // first.
  std::function<void(const VerifyProgress&)> progress;
  // Called as damage is found, one call at a time, from a reading thread.
  std::function<void(const VerifyDamage&)> on_damage;
  // True ends the run early, without an error. Asked from the calling thread about ten times a second.
  std::function<bool()> stop;
};

struct VerifyReport {
  uint64_t names = 0;  // that were looked at
  uint64_t objects_read = 0;
  uint64_t shared_names = 0;   // whose object had just been found whole under another name: not read again
  uint64_t changed_names = 0;  // replaced or deleted by the writer while they were read: neither whole nor damaged
  uint64_t bytes_read = 0;
  uint64_t damaged_names = 0;
  uint64_t damage_count = 0;  // calls of on_damage
  uint64_t commit = 0;        // newest commit seen at the start
  bool stopped = false;
};

// A status only for what keeps the run from going on (closed, forked, names that cannot be listed); damage is in the
// report.
absl::StatusOr<VerifyReport> VerifyStore(Store& store, const std::string& prefix, const VerifyOptions& options);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_VERIFY_H_
