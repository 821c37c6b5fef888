#include "store/commit_evaluator.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "store/layout.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

std::string Quoted(const std::string& name) { return absl::StrCat("\"", EscapeForTerminal(name), "\""); }

absl::Status Missing(const std::string& name) {
  return absl::NotFoundError(absl::StrCat("no object named ", Quoted(name)));
}

absl::Status PreconditionFailed(const std::string& name, const std::string& what) {
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kPrecondition,
                   absl::StrCat(Quoted(name), ": ", what));
}

}  // namespace

absl::Status CommitEvaluator::Evaluate(CommitRequest& request, CommitResult& result) {
  const Counters before = counters_;
  const size_t dropped_before = dropped_.size();
  const size_t deletes_before = ephemeral_deletes_.size();
  undo_.clear();
  ephemeral_undo_.clear();
  records_undo_.clear();
  batch_->SetSavePoint();
  absl::Status status;
  for (CommitOp& op : request.ops) {
    status = EvaluateOp(op, result);
    if (!status.ok()) break;
  }
  if (status.ok()) {
    batch_->DropSavePoint();
    return status;
  }
  batch_->RollbackToSavePoint();
  counters_ = before;
  dropped_.resize(dropped_before);
  ephemeral_deletes_.resize(deletes_before);
  UndoRequest();
  return status;
}

void CommitEvaluator::UndoRequest() {
  const auto undo = [](auto& map, auto& log) {
    for (auto entry = log.rbegin(); entry != log.rend(); ++entry) {
      if (entry->second.has_value()) {
        map[entry->first] = *entry->second;
      } else {
        map.erase(entry->first);
      }
    }
  };
  undo(names_of_, undo_);
  undo(ephemeral_now_, ephemeral_undo_);
  undo(new_records_, records_undo_);
}

absl::Status CommitEvaluator::EvaluateOp(CommitOp& op, CommitResult& result) {
  switch (op.kind) {
    case CommitOp::Kind::kPut:
      return Put(op.staged, result);
    case CommitOp::Kind::kDelete:
      return Delete(op.name, op.missing_ok, result);
    case CommitOp::Kind::kRename:
    case CommitOp::Kind::kClone:
      return Move(op, result);
    case CommitOp::Kind::kDeletePrefix:
      return DeletePrefix(op.name, result);
    case CommitOp::Kind::kRenamePrefix:
    case CommitOp::Kind::kClonePrefix:
      return MovePrefix(op, result);
    case CommitOp::Kind::kRequire:
      return Check(op.name, op.precondition);
    case CommitOp::Kind::kMove:
      return MoveObject(op);
    case CommitOp::Kind::kFiles:
      ++counters_.changes;
      return op.change(*batch_);
  }
  return absl::InternalError("unknown commit operation");
}

absl::Status CommitEvaluator::Check(const std::string& name, const Precondition& precondition) const {
  if (precondition.kind == Precondition::Kind::kNone) return absl::OkStatus();
  TS_ASSIGN_OR_RETURN(const std::optional<NameRow> row, batch_->FindName(name));
  const bool exists = row.has_value() || EphemeralExists(name);
  switch (precondition.kind) {
    case Precondition::Kind::kNone:
      break;
    case Precondition::Kind::kAbsent:
      if (exists) return PreconditionFailed(name, "it must be absent and exists");
      break;
    case Precondition::Kind::kExists:
      if (!exists) return PreconditionFailed(name, "it must exist and is absent");
      break;
    case Precondition::Kind::kGeneration:
      if (!row.has_value() || row->generation != precondition.generation) {
        return PreconditionFailed(name, absl::StrCat("it must be generation ", precondition.generation, " and is ",
                                                     row.has_value() ? absl::StrCat(row->generation) : "absent"));
      }
      break;
  }
  return absl::OkStatus();
}

absl::Status CommitEvaluator::Put(StagedObject& staged, CommitResult& result) {
  TS_RETURN_IF_ERROR(Check(staged.name, staged.precondition));
  if (staged.is_unchanged) {
    TS_ASSIGN_OR_RETURN(const std::optional<NameRow> row, batch_->FindName(staged.name));
    const uint64_t generation = staged.unchanged.record().generation;
    if (!row.has_value() || row->generation != generation) {
      return MakeError(absl::StatusCode::kAborted, ErrorKind::kStale,
                       absl::StrCat(Quoted(staged.name), ": replaced by another put while this one compared it"));
    }
    result.generations.push_back(generation);
    ++result.unchanged_count;
    return absl::OkStatus();
  }
  const ObjectRecord& record = *staged.record;
  result.generations.push_back(record.generation);
  if (staged.ephemeral) {
    TS_ASSIGN_OR_RETURN(const std::optional<NameRow> row, batch_->FindName(staged.name));
    if (!row.has_value()) {
      SetEphemeral(staged.name, &staged);
      return absl::OkStatus();
    }
    return absl::AlreadyExistsError(
        absl::StrCat(Quoted(staged.name), " is a durable object and cannot be replaced by an ephemeral one"));
  }
  SetRecord(staged.record);
  SetNames(record.generation, 0);
  NameRow row;
  row.generation = record.generation;
  if (record.placement == Placement::kInline) {
    row.flags = NameRow::kInline;
    TS_RETURN_IF_ERROR(batch_->PutInlineObject(record, BytesOf(*staged.payload)));
    ++counters_.inline_count.rows;
    counters_.inline_count.bytes += staged.payload->size();
  } else {
    TS_RETURN_IF_ERROR(batch_->PutObject(record, staged.sums));
  }
  ++counters_.object_delta;
  return PointName(staged.name, row, /*replace=*/true);
}

// Makes `name` point to row.generation, with one more reference to it and one less to what was there.
absl::Status CommitEvaluator::PointName(const std::string& name, const NameRow& row, bool replace) {
  TS_RETURN_IF_ERROR(ValidateName(name));
  TS_ASSIGN_OR_RETURN(const std::optional<NameRow> old, batch_->FindName(name));
  if (!replace && (old.has_value() || EphemeralExists(name))) {
    return absl::AlreadyExistsError(absl::StrCat(Quoted(name), " exists"));
  }
  AddReference(row.generation);
  batch_->PutName(name, row);
  ++counters_.changes;
  if (EphemeralExists(name)) SetEphemeral(name, nullptr);
  ephemeral_deletes_.push_back(name);
  if (old.has_value()) return DropReference(*old);
  ++counters_.name_delta;
  return absl::OkStatus();
}

absl::Status CommitEvaluator::RemoveName(const std::string& name, const NameRow& row, bool drop_reference) {
  batch_->DeleteName(name);
  --counters_.name_delta;
  ++counters_.changes;
  return drop_reference ? DropReference(row) : absl::OkStatus();
}

absl::Status CommitEvaluator::Delete(const std::string& name, bool missing_ok, CommitResult& result) {
  TS_ASSIGN_OR_RETURN(const std::optional<NameRow> row, batch_->FindName(name));
  if (row.has_value()) {
    ++result.names_changed;
    return RemoveName(name, *row, /*drop_reference=*/true);
  }
  if (EphemeralExists(name)) {
    ++result.names_changed;
    SetEphemeral(name, nullptr);
    ephemeral_deletes_.push_back(name);
    return absl::OkStatus();
  }
  return missing_ok ? absl::OkStatus() : Missing(name);
}

absl::Status CommitEvaluator::Move(const CommitOp& op, CommitResult& result) {
  TS_ASSIGN_OR_RETURN(const std::optional<NameRow> row, batch_->FindName(op.name));
  if (!row.has_value()) {
    if (!EphemeralExists(op.name)) return Missing(op.name);
    return absl::InvalidArgumentError(
        absl::StrCat(Quoted(op.name), " is ephemeral: it cannot be renamed or cloned, only put again"));
  }
  if (op.name == op.to) return absl::OkStatus();
  ++result.names_changed;
  TS_RETURN_IF_ERROR(PointName(op.to, *row, op.replace));
  if (op.kind == CommitOp::Kind::kClone) return absl::OkStatus();
  return RemoveName(op.name, *row, /*drop_reference=*/true);
}

absl::Status CommitEvaluator::DeletePrefix(const std::string& prefix, CommitResult& result) {
  std::vector<std::pair<std::string, NameRow>> names;
  TS_RETURN_IF_ERROR(batch_->ScanNames(prefix, [&](const std::string& name, const NameRow& row) {
    names.emplace_back(name, row);
    return true;
  }));
  for (const auto& [name, row] : names) TS_RETURN_IF_ERROR(RemoveName(name, row, /*drop_reference=*/true));
  result.names_changed += names.size();
  std::vector<std::string> ephemeral;
  for (auto& [name, generation] : ephemeral_->List(prefix, "", SIZE_MAX)) {
    if (!ephemeral_now_.contains(name)) ephemeral.push_back(std::move(name));
  }
  for (const auto& [name, staged] : ephemeral_now_) {
    if (staged != nullptr && name.compare(0, prefix.size(), prefix) == 0) ephemeral.push_back(name);
  }
  for (std::string& name : ephemeral) {
    SetEphemeral(name, nullptr);
    ephemeral_deletes_.push_back(std::move(name));
    ++result.names_changed;
  }
  return absl::OkStatus();
}

absl::Status CommitEvaluator::MovePrefix(const CommitOp& op, CommitResult& result) {
  std::vector<std::pair<std::string, NameRow>> names;
  TS_RETURN_IF_ERROR(batch_->ScanNames(op.name, [&](const std::string& name, const NameRow& row) {
    names.emplace_back(name, row);
    return true;
  }));
  if (op.name == op.to) return absl::OkStatus();
  // Old and new names may overlap ("a" -> "aa"). So a rename takes all old names away first, and every object is held
  // by a reference of its own until its new name has one: a clone may replace an old name whose turn is still to come.
  for (const auto& [name, row] : names) AddReference(row.generation);
  if (op.kind == CommitOp::Kind::kRenamePrefix) {
    for (const auto& [name, row] : names) TS_RETURN_IF_ERROR(RemoveName(name, row, /*drop_reference=*/true));
  }
  for (const auto& [name, row] : names) {
    TS_RETURN_IF_ERROR(PointName(op.to + name.substr(op.name.size()), row, op.replace));
    TS_RETURN_IF_ERROR(DropReference(row));
  }
  result.names_changed += names.size();
  return absl::OkStatus();
}

// Names point to generations, so a move concerns none of them: whatever was renamed or cloned meanwhile moves along.
absl::Status CommitEvaluator::MoveObject(CommitOp& op) {
  const ObjectRecord& to = *op.staged.record;
  TS_ASSIGN_OR_RETURN(const SharedRecord now, CurrentRecord(to.generation, /*is_inline=*/false));
  if (now == nullptr || now->place_seq + 1 != to.place_seq) {
    op.lost = true;
    op.staged.space = ReservedSpace();
    return absl::OkStatus();
  }
  // Rows of sums stay as they are: they go by generation.
  TS_RETURN_IF_ERROR(batch_->PutObject(to, {}));
  const std::vector<Extent> kept = ExtentsOf(to);
  DroppedSpace left{to.generation, now->place_seq, ExtentsOf(*now), /*moved=*/true, /*sums_count=*/0};
  std::erase_if(left.extents,
                [&](const Extent& extent) { return std::find(kept.begin(), kept.end(), extent) != kept.end(); });
  dropped_.push_back(std::move(left));
  SetRecord(op.staged.record);
  ++counters_.changes;
  return absl::OkStatus();
}

absl::StatusOr<CommitEvaluator::SharedRecord> CommitEvaluator::CurrentRecord(uint64_t generation,
                                                                             bool is_inline) const {
  if (const auto names = names_of_.find(generation); names != names_of_.end() && names->second == 0) return nullptr;
  if (const auto found = new_records_.find(generation); found != new_records_.end()) return found->second;
  absl::StatusOr<SharedRecord> record = index_->FindRecord(generation, is_inline);
  if (absl::IsNotFound(record.status())) return nullptr;
  return record;
}

void CommitEvaluator::SetRecord(SharedRecord record) {
  const uint64_t generation = record->generation;
  const auto found = new_records_.find(generation);
  records_undo_.emplace_back(generation, found == new_records_.end() ? std::nullopt : std::optional(found->second));
  new_records_[generation] = std::move(record);
}

uint64_t CommitEvaluator::NamesOf(uint64_t generation) const {
  if (const auto found = names_of_.find(generation); found != names_of_.end()) return found->second;
  if (const auto found = shared_->find(generation); found != shared_->end()) return found->second;
  return 1;
}

void CommitEvaluator::SetNames(uint64_t generation, uint64_t count) {
  const auto found = names_of_.find(generation);
  undo_.emplace_back(generation, found == names_of_.end() ? std::nullopt : std::optional(found->second));
  names_of_[generation] = count;
}

bool CommitEvaluator::EphemeralExists(const std::string& name) const {
  if (const auto found = ephemeral_now_.find(name); found != ephemeral_now_.end()) return found->second != nullptr;
  return ephemeral_->Contains(name);
}

void CommitEvaluator::SetEphemeral(const std::string& name, StagedObject* staged) {
  const auto found = ephemeral_now_.find(name);
  ephemeral_undo_.emplace_back(name, found == ephemeral_now_.end() ? std::nullopt : std::optional(found->second));
  ephemeral_now_[name] = staged;
}

absl::Status CommitEvaluator::DropReference(const NameRow& row) {
  const uint64_t count = NamesOf(row.generation);
  TS_CHECK(count > 0);
  SetNames(row.generation, count - 1);
  if (count > 1) return absl::OkStatus();
  const bool is_inline = (row.flags & NameRow::kInline) != 0;
  SharedRecord record;
  if (const auto found = new_records_.find(row.generation); found != new_records_.end()) {
    record = found->second;
  } else {
    TS_ASSIGN_OR_RETURN(record, index_->FindRecord(row.generation, is_inline));
  }
  batch_->DeleteObject(*record);
  --counters_.object_delta;
  if (is_inline) {
    --counters_.inline_count.rows;
    counters_.inline_count.bytes -= record->logical_bytes;
  }
  dropped_.push_back({record->generation, record->place_seq, ExtentsOf(*record), /*moved=*/false,
                      record->sums.empty() && !is_inline ? record->sums_count() : 0});
  return absl::OkStatus();
}

void CommitEvaluator::ApplyTo(SharedNames& shared) const {
  for (const auto& [generation, count] : names_of_) {
    if (count >= 2) {
      shared[generation] = count;
    } else {
      shared.erase(generation);
    }
  }
}

}  // namespace tensorshelf
