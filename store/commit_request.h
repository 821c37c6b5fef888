// What a transaction asks of the commit thread.

#ifndef TENSORSHELF_STORE_COMMIT_REQUEST_H_
#define TENSORSHELF_STORE_COMMIT_REQUEST_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/notification.h"
#include "store/memory_tier.h"
#include "store/staged_object.h"
#include "store/store.h"

namespace tensorshelf {

struct CommitOp {
  enum class Kind {
    kPut,
    kDelete,
    kRename,
    kClone,
    kDeletePrefix,
    kRenamePrefix,
    kClonePrefix,
    kRequire,
    kMove,
    kFiles
  };
  Kind kind = Kind::kPut;
  StagedObject staged;       // kPut; kMove: the record at its new place, and the space that is new to it
  MemoryTier::Claim memory;  // kPut: the bytes in the memory tier, if there is room, to be published with the commit
  // kMove, after the evaluation: the object was dropped or moved by somebody else since its record was read. Nothing
  // was done, the space went back.
  bool lost = false;
  std::string name;  // or the prefix; the source of kRename and kClone
  std::string to;
  bool missing_ok = false;    // kDelete
  bool replace = false;       // kRename, kClone and their prefix forms
  Precondition precondition;  // kRequire
  // kFiles: which data files belong to the store. `change` adds the rows, `published` follows the durable commit; both
  // are called by the commit thread.
  std::function<absl::Status(CommitBatch& batch)> change;
  std::function<void()> published;
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
