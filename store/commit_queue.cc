#include "store/commit_queue.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

constexpr size_t kGroupMax = 4096;  // requests; bounds how long the first of a group waits for the last

int64_t SteadyMilliseconds() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

void WriteLatch::Close(const std::string& reason) {
  absl::MutexLock lock(&mutex_);
  if (reason_.empty()) reason_ = reason;
  closed_.store(true, std::memory_order_release);
}

absl::Status WriteLatch::status() const {
  if (!closed()) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kLatched,
                   absl::StrCat("the store is read-only until it is opened again: ", reason_));
}

CommitQueue::CommitQueue(Context context, Counts counts)
    : context_(std::move(context)),
      counts_(std::move(counts)),
      witnessed_(context_.published->load()),
      witnessed_ms_(SteadyMilliseconds()),
      names_(counts_.names),
      objects_(counts_.objects),
      last_work_ms_(SteadyMilliseconds()),
      thread_([this] { Loop(); }) {}

CommitQueue::~CommitQueue() { Stop(); }

void CommitQueue::Run(CommitRequest& request) {
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      request.result = MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kClosed, "the store is closed");
      return;
    }
    waiting_.push_back(&request);
  }
  request.done.WaitForNotification();
}

void CommitQueue::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

int64_t CommitQueue::idle_ms() const { return SteadyMilliseconds() - last_work_ms_.load(std::memory_order_relaxed); }

CommitQueue::Stats CommitQueue::stats() const {
  Stats stats{.commits = commits_.load(), .groups = groups_.load(), .syncs = syncs_.load()};
  stats.names = names_.load();
  stats.objects = objects_.load();
  absl::MutexLock lock(&mutex_);
  stats.waiting = waiting_.size();
  return stats;
}

void CommitQueue::Loop() {
  while (true) {
    Group group;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !waiting_.empty(); };
      const bool owes_witness = witnessed_ < context_.published->load() && !context_.latch->closed() && !all_read_only_;
      if (owes_witness) {
        mutex_.AwaitWithTimeout(absl::Condition(&has_work), absl::Milliseconds(context_.idle_witness_ms));
      } else {
        mutex_.Await(absl::Condition(&has_work));
      }
      while (!waiting_.empty() && group.size() < kGroupMax) {
        group.push_back(waiting_.front());
        waiting_.pop_front();
      }
      if (group.empty() && stopping_) return;
    }
    if (group.empty()) {
      // Idle. A failure here loses nothing: the next commit carries the witness; but it says that the file is in
      // trouble.
      const absl::Status status = WriteWitness(/*clean=*/false);
      if (!status.ok()) context_.latch->Close(std::string(status.message()));
      continue;
    }
    last_work_ms_.store(SteadyMilliseconds(), std::memory_order_relaxed);
    OperationTimer timer(*context_.meters, Operation::kCommit);
    CommitGroup(group);
    timer.End(context_.latch->status(), group.size(), 0);
    const bool wants_witness =
        std::any_of(group.begin(), group.end(), [](const CommitRequest* request) { return request->write_witness; });
    if (wants_witness) {
      absl::Status status = WriteWitness(/*clean=*/false);
      if (status.ok() && all_read_only_) {
        status = absl::InternalError("no witness was written: every data file is read-only since a sync of it failed");
      }
      for (CommitRequest* request : group) {
        if (request->write_witness && request->result.ok() && !status.ok()) request->result = status;
      }
    }
    last_work_ms_.store(SteadyMilliseconds(), std::memory_order_relaxed);
    for (CommitRequest* request : group) request->done.Notify();
    WriteOverdueWitness();
  }
}

// A busy stream of commits is never idle, and those without data in a file carry no witness of the ones before them.
void CommitQueue::WriteOverdueWitness() {
  const int64_t now_ms = SteadyMilliseconds();
  if (witnessed_ + 1 >= context_.published->load()) {
    witnessed_ms_ = now_ms;
    return;
  }
  if (now_ms - witnessed_ms_ < context_.idle_witness_ms || context_.latch->closed() || all_read_only_) return;
  witnessed_ms_ = now_ms;
  const absl::Status status = WriteWitness(/*clean=*/false);
  if (!status.ok()) context_.latch->Close(std::string(status.message()));
}

bool CommitQueue::OnlyDeletes(const Group& group) {
  for (const CommitRequest* request : group) {
    for (const CommitOp& op : request->ops) {
      const bool frees = op.kind == CommitOp::Kind::kDelete || op.kind == CommitOp::Kind::kDeletePrefix ||
                         op.kind == CommitOp::Kind::kRequire;
      if (!frees) return false;
    }
  }
  return true;
}

void CommitQueue::EvaluateGroup(const Group& group, CommitEvaluator& evaluator, Group& accepted,
                                std::vector<CommitResult>& results) {
  for (CommitRequest* request : group) {
    CommitResult result;
    const absl::Status status = evaluator.Evaluate(*request, result);
    if (status.ok()) {
      accepted.push_back(request);
      results.push_back(std::move(result));
    } else {
      request->result = status;
      request->ops.clear();  // its reserved space goes back
    }
  }
}

void CommitQueue::CommitGroup(const Group& group) {
  groups_.fetch_add(1, std::memory_order_relaxed);
  if (const absl::Status latched = context_.latch->status(); !latched.ok()) return FailGroup(group, latched);
  const std::unique_ptr<CommitBatch> batch = context_.index->NewBatch();
  CommitEvaluator evaluator(context_.index, batch.get(), &counts_.shared, context_.ephemeral, counts_.inline_count);
  Group accepted;
  std::vector<CommitResult> results;
  EvaluateGroup(group, evaluator, accepted, results);
  uint64_t commit = context_.published->load();
  if (evaluator.changes_index()) {
    ++commit;
    const absl::Status room = context_.check_index_room(batch->size_bytes(), OnlyDeletes(accepted));
    if (!room.ok()) return FailForRoom(accepted, room);
    if (evaluator.inline_count() != counts_.inline_count) batch->PutInlineCount(evaluator.inline_count());
    if (!super_stored_) batch->PutSuper(context_.super);
    if (!TS_MUTATE(row_before_data)) {
      if (const absl::Status synced = SyncTouched(accepted, *batch); !synced.ok()) return FailGroup(accepted, synced);
    }
    if (TS_MUTATE(free_before_commit)) {
      for (const DroppedSpace& dropped : evaluator.dropped()) {
        context_.parked->Park(dropped.generation, dropped.place_seq, commit, dropped.extents);
      }
      context_.parked->Reclaim();
    }
    PutBadUnits(*batch);
    KeepSums(evaluator);
    context_.sequence->fetch_add(1);
    OperationTimer timer(*context_.meters, Operation::kIndexWrite);
    absl::Status committed = context_.index->Commit(*batch, commit);
    timer.End(committed, 1, batch->size_bytes());
    if (TS_MUTATE(row_before_data)) SyncTouched(accepted, *context_.index->NewBatch()).IgnoreError();
    if (TS_MUTATE(ignore_log_error)) committed = absl::OkStatus();
    if (TS_MUTATE(reuse_after_log_error) && !committed.ok()) return FailGroup(accepted, committed);
    if (!committed.ok()) context_.sequence->fetch_add(1);
    if (absl::IsResourceExhausted(committed) && batch->size_bytes() > (uint64_t{1} << 30)) {
      return FailGroup(accepted, committed);  // refused before anything was written
    }
    if (!committed.ok()) {
      context_.latch->Close(
          absl::StrCat("the outcome of commit ", commit, " is unknown: ", std::string(committed.message())));
      for (CommitRequest* request : accepted) {
        for (CommitOp& op : request->ops) op.staged.space.BecomeState(SpaceState::kLimbo);
      }
      return FailGroup(accepted, context_.latch->status());
    }
    super_stored_ = true;
    commits_.fetch_add(1, std::memory_order_relaxed);
  }
  PublishGroup(accepted, evaluator, commit);
  if (evaluator.changes_index()) context_.sequence->fetch_add(1);
  for (size_t i = 0; i < accepted.size(); ++i) {
    results[i].commit = evaluator.changes_index() ? commit : 0;
    accepted[i]->result = std::move(results[i]);
  }
}

void CommitQueue::KeepSums(const CommitEvaluator& evaluator) {
  for (const DroppedSpace& dropped : evaluator.dropped()) {
    if (dropped.sums_count == 0) continue;
    std::vector<uint64_t> sums(dropped.sums_count);
    // Rows that are missing or damaged do not keep an object from being dropped; who reads it is told.
    if (!context_.index->ReadSums(dropped.generation, 0, std::span<uint64_t>(sums)).ok()) continue;
    context_.parked->KeepSums(dropped.generation, std::move(sums));
  }
}

absl::Status CommitQueue::SyncTouched(const Group& accepted, CommitBatch& batch) {
  std::set<DataFile*> touched;
  for (const CommitRequest* request : accepted) {
    for (const CommitOp& op : request->ops) {
      if (op.staged.ephemeral) continue;
      for (const Extent& extent : op.staged.space.extents()) touched.insert(context_.devices->Find(extent.file_id));
    }
  }
  std::vector<DataFile*> files(touched.begin(), touched.end());
  const WitnessSlot content{.file_id = 0,
                            .store_uuid = context_.super.store_uuid,
                            .epoch = context_.super.epoch,
                            .durable_commit = context_.published->load() + (TS_MUTATE(witness_too_early) ? 1 : 0)};
  std::vector<absl::Status> statuses(files.size());
  for (size_t i = 0; i < files.size(); ++i) {
    if (files[i]->read_only.load()) {
      return absl::InternalError(absl::StrCat(files[i]->NameForMessages(), " is read-only since a sync of it failed"));
    }
    if (!TS_MUTATE(skip_witness_slot)) statuses[i] = context_.devices->WriteNextSlot(*files[i], content);
  }
  OperationTimer timer(*context_.meters, Operation::kSync);
  const std::vector<absl::Status> synced =
      TS_MUTATE(skip_data_sync) ? std::vector<absl::Status>(files.size()) : context_.devices->Sync(files);
  const auto failed = std::find_if(synced.begin(), synced.end(), [](const absl::Status& each) { return !each.ok(); });
  if (!files.empty()) timer.End(failed == synced.end() ? absl::OkStatus() : *failed, files.size(), 0);
  syncs_.fetch_add(files.size(), std::memory_order_relaxed);
  absl::Status first_error;
  for (size_t i = 0; i < files.size(); ++i) {
    const absl::Status& status = statuses[i].ok() ? synced[i] : statuses[i];
    if (!status.ok() && !TS_MUTATE(ignore_sync_error)) {
      // A later sync proves nothing about what this one lost, so nothing on this file is acknowledged any more.
      if (!TS_MUTATE(go_on_after_sync_error)) {
        files[i]->read_only.store(true);
        const absl::Status known = context_.allocator->SetReadOnly(files[i]->row.file_id);
        TS_CHECK(known.ok());
      }
      for (CommitRequest* request : accepted) {
        for (CommitOp& op : request->ops) {
          std::vector<Extent> limbo, rest;
          for (const Extent& extent : op.staged.space.Take()) {
            (extent.file_id == files[i]->row.file_id ? limbo : rest).push_back(extent);
          }
          if (!limbo.empty()) context_.allocator->Move(limbo, SpaceState::kReserved, SpaceState::kLimbo);
          op.staged.space = ReservedSpace(context_.allocator, std::move(rest));
        }
      }
      if (first_error.ok()) first_error = status;
    } else if (!TS_MUTATE(forget_fsync_slot)) {
      batch.PutFsyncSlot(files[i]->row.file_id, files[i]->slot_seq);
    }
  }
  if (first_error.ok() && !files.empty()) witnessed_ = std::max(witnessed_, content.durable_commit);
  return first_error;
}

void CommitQueue::PublishGroup(const Group& accepted, const CommitEvaluator& evaluator, uint64_t commit) {
  for (CommitRequest* request : accepted) {
    for (CommitOp& op : request->ops) {
      if (!op.staged.ephemeral) op.staged.space.BecomeState(SpaceState::kLive);
      if (op.published) op.published();
    }
  }
  // First the new ones, then the dropped: an object that came and went in one group is not kept.
  if (context_.memory_tier != nullptr) {
    for (CommitRequest* request : accepted) {
      for (CommitOp& op : request->ops) {
        if (op.memory.role() == MemoryTier::Claim::Role::kFill) context_.memory_tier->Publish(op.memory);
      }
    }
  }
  context_.published->store(commit, std::memory_order_seq_cst);
  for (const DroppedSpace& dropped : evaluator.dropped()) {
    if (!TS_MUTATE(free_before_commit)) {
      context_.parked->Park(dropped.generation, dropped.place_seq, commit, dropped.extents);
    }
    if (context_.memory_tier != nullptr && !dropped.moved) context_.memory_tier->Drop(dropped.generation);
  }
  for (const std::string& name : evaluator.ephemeral_deletes()) context_.ephemeral->Delete(name);
  for (const auto& [name, staged] : evaluator.ephemeral_puts()) {
    if (staged == nullptr) continue;
    // Evaluation found no durable name, and this thread is the only one that makes them.
    const absl::Status stored =
        context_.ephemeral->Put({&staged, 1}, [](const std::string&) { return absl::OkStatus(); });
    TS_CHECK(stored.ok());
  }
  evaluator.ApplyTo(counts_.shared);
  counts_.names += evaluator.name_delta();
  counts_.objects += evaluator.object_delta();
  counts_.inline_count = evaluator.inline_count();
  names_.store(counts_.names, std::memory_order_relaxed);
  objects_.store(counts_.objects, std::memory_order_relaxed);
  context_.parked->Reclaim();
}

void CommitQueue::FailGroup(const Group& accepted, const absl::Status& status) {
  for (CommitRequest* request : accepted) {
    request->result = status;
    request->ops.clear();
  }
}

// Only deletes may use the last of the room, also when they came in one group with something else.
void CommitQueue::FailForRoom(const Group& accepted, const absl::Status& status) {
  Group deletes, others;
  for (CommitRequest* request : accepted) (OnlyDeletes({request}) ? deletes : others).push_back(request);
  if (others.empty()) return FailGroup(accepted, status);
  FailGroup(others, status);
  if (!deletes.empty()) CommitGroup(deletes);
}

void CommitQueue::PutBadUnits(CommitBatch& batch) {
  for (const Extent& bad : context_.stager->TakeBadUnits()) batch.PutBadUnits(bad);
  for (const Extent& bad : context_.parked->TakeBadUnits()) batch.PutBadUnits(bad);
}

absl::Status CommitQueue::CommitBadUnits() {
  const std::unique_ptr<CommitBatch> batch = context_.index->NewBatch();
  const uint64_t empty = batch->size_bytes();
  PutBadUnits(*batch);
  if (batch->size_bytes() == empty) return absl::OkStatus();
  if (!super_stored_) batch->PutSuper(context_.super);
  const uint64_t commit = context_.published->load() + 1;
  TS_RETURN_IF_ERROR(context_.index->Commit(*batch, commit));
  context_.published->store(commit);
  return absl::OkStatus();
}

absl::Status CommitQueue::WriteWitness(bool clean) {
  if (clean ? TS_MUTATE(skip_closing_witness) : TS_MUTATE(skip_idle_witness)) return absl::OkStatus();
  const uint64_t commit = context_.published->load();
  const WitnessSlot content{.file_id = 0,
                            .store_uuid = context_.super.store_uuid,
                            .epoch = context_.super.epoch,
                            .durable_commit = commit,
                            .clean = clean};
  std::vector<DataFile*> files;
  for (const auto& file : context_.devices->files()) {
    if (file->file != nullptr && !file->read_only.load()) files.push_back(file);
  }
  all_read_only_ = files.empty();
  if (all_read_only_) return absl::OkStatus();
  for (DataFile* file : files) TS_RETURN_IF_ERROR(context_.devices->WriteNextSlot(*file, content));
  const std::vector<absl::Status> synced = context_.devices->Sync(files);
  absl::Status first_error;
  for (size_t i = 0; i < files.size(); ++i) {
    if (synced[i].ok()) continue;
    files[i]->read_only.store(true);
    const absl::Status known = context_.allocator->SetReadOnly(files[i]->row.file_id);
    TS_CHECK(known.ok());
    if (first_error.ok()) first_error = synced[i];
  }
  if (first_error.ok()) witnessed_ = commit;
  return first_error;
}

}  // namespace tensorshelf
