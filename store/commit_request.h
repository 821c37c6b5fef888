// What a transaction asks of the commit thread.

#ifndef TENSORSHELF_STORE_COMMIT_REQUEST_H_
#define TENSORSHELF_STORE_COMMIT_REQUEST_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "store/memory_tier.h"
#include "store/staged_object.h"
#include "store/store.h"

namespace tensorshelf {

struct CommitOp {
  enum class Kind { kPut, kDelete, kRename, kClone, kDeletePrefix, kRenamePrefix, kClonePrefix, kRequire };
  Kind kind = Kind::kPut;
  StagedObject staged;       // kPut
  MemoryTier::Claim memory;  // kPut: the bytes in the memory tier, if there is room, to be published with the commit
  std::string name;          // or the prefix; the source of kRename and kClone
  std::string to;
  bool missing_ok = false;    // kDelete
  bool replace = false;       // kRename, kClone and their prefix forms
  Precondition precondition;  // kRequire
};

// Owned by the thread that waits for `done`.
struct CommitRequest {
  std::vector<CommitOp> ops;
  bool write_witness = false;  // after the commit, or alone: put its number into a slot of every file
  absl::StatusOr<CommitResult> result{CommitResult{}};
  absl::Notification done;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_COMMIT_REQUEST_H_
