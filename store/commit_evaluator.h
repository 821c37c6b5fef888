// Turns the requests of one commit group into one index batch: preconditions, names, reference counts, dropped objects.
//
// Requests are evaluated one after the other, each seeing what the ones before it did; a refused one leaves no trace.

#ifndef TENSORSHELF_STORE_COMMIT_EVALUATOR_H_
#define TENSORSHELF_STORE_COMMIT_EVALUATOR_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "index/index.h"
#include "store/commit_request.h"
#include "store/ephemeral_table.h"

namespace tensorshelf {

// Generations with two names or more. Every other generation that a name points to has one. Belongs to the commit
// thread.
using SharedNames = absl::flat_hash_map<uint64_t, uint64_t>;

// Space that no record names any more: of a dropped object, or of one that moved away from it.
struct DroppedSpace {
  uint64_t generation = 0;
  uint32_t place_seq = 0;
  std::vector<Extent> extents;
  bool moved = false;       // the object lives on, elsewhere
  uint64_t sums_count = 0;  // of the sums that lie in rows
};

// Confined to the commit thread; lives for one group.
class CommitEvaluator {
 public:
  CommitEvaluator(Index* index, CommitBatch* batch, const SharedNames* shared, const EphemeralTable* ephemeral,
                  InlineCountRow inline_count)
      : index_(index), batch_(batch), shared_(shared), ephemeral_(ephemeral) {
    counters_.inline_count = inline_count;
  }

  // Adds the request to the batch and fills `result`, or returns why not.
  absl::Status Evaluate(CommitRequest& request, CommitResult& result);

  // What the group does, once the batch is durable.
  const std::vector<DroppedSpace>& dropped() const { return dropped_; }
  // Names that are no ephemeral ones afterwards. All that became durable are here, also those that were not ephemeral
  // when they were evaluated: an ephemeral put needs no commit and may come in between.
  const std::vector<std::string>& ephemeral_deletes() const { return ephemeral_deletes_; }
  // Ephemeral objects to publish, after the deletes; null: the name was deleted or replaced again.
  const absl::flat_hash_map<std::string, StagedObject*>& ephemeral_puts() const { return ephemeral_now_; }
  int64_t name_delta() const { return counters_.name_delta; }
  int64_t object_delta() const { return counters_.object_delta; }
  const InlineCountRow& inline_count() const { return counters_.inline_count; }
  bool changes_index() const { return counters_.changes > 0; }
  void ApplyTo(SharedNames& shared) const;

 private:
  // Saved before each request and put back when it is refused; the lists are cut, the map is undone by its log.
  struct Counters {
    int64_t name_delta = 0;
    int64_t object_delta = 0;
    InlineCountRow inline_count;
    uint64_t changes = 0;
  };
  using Undo = std::vector<std::pair<uint64_t, std::optional<uint64_t>>>;
  using SharedRecord = std::shared_ptr<const ObjectRecord>;

  absl::Status EvaluateOp(CommitOp& op, CommitResult& result);
  absl::Status Put(StagedObject& staged, CommitResult& result);
  absl::Status Delete(const std::string& name, bool missing_ok, CommitResult& result);
  absl::Status Move(const CommitOp& op, CommitResult& result);
  absl::Status MovePrefix(const CommitOp& op, CommitResult& result);
  absl::Status DeletePrefix(const std::string& prefix, CommitResult& result);
  absl::Status MoveObject(CommitOp& op);
  absl::Status Check(const std::string& name, const Precondition& precondition) const;
  absl::Status PointName(const std::string& name, const NameRow& row, bool replace);
  absl::Status RemoveName(const std::string& name, const NameRow& row, bool drop_reference);

  uint64_t NamesOf(uint64_t generation) const;
  void SetNames(uint64_t generation, uint64_t count);
  void AddReference(uint64_t generation) { SetNames(generation, NamesOf(generation) + 1); }
  absl::Status DropReference(const NameRow& row);
  // As it is after what was evaluated before; null: there is none any more.
  absl::StatusOr<SharedRecord> CurrentRecord(uint64_t generation, bool is_inline) const;
  void SetRecord(SharedRecord record);

  bool EphemeralExists(const std::string& name) const;
  void SetEphemeral(const std::string& name, StagedObject* staged);
  void UndoRequest();

  Index* const index_;
  CommitBatch* const batch_;
  const SharedNames* const shared_;
  const EphemeralTable* const ephemeral_;
  Counters counters_;
  std::vector<DroppedSpace> dropped_;
  std::vector<std::string> ephemeral_deletes_;
  absl::flat_hash_map<uint64_t, uint64_t> names_of_;  // overlay over *shared_: how many names a generation has
  Undo undo_;
  absl::flat_hash_map<std::string, StagedObject*> ephemeral_now_;  // overlay over *ephemeral_; null: deleted
  std::vector<std::pair<std::string, std::optional<StagedObject*>>> ephemeral_undo_;
  absl::flat_hash_map<uint64_t, SharedRecord> new_records_;  // overlay over the index's: put or moved in this group
  std::vector<std::pair<uint64_t, std::optional<SharedRecord>>> records_undo_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_COMMIT_EVALUATOR_H_
