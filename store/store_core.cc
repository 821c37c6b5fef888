#include "store/store_core.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "engine/foundation/process_id.h"
#include "engine/foundation/status_macros.h"
#include "store/freemap.h"
#include "store/layout.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

constexpr absl::Duration kFollowEvery = absl::Seconds(1);
constexpr uint64_t kSampledBytesMax = 4096;  // of a read that may take no longer than two looks at the clock
constexpr int kCommitTries = 4;              // of a put whose unchanged object was replaced while it was compared

std::string Quoted(const std::string& name) { return absl::StrCat("\"", EscapeForTerminal(name), "\""); }

}  // namespace

StoreCore::~StoreCore() { Close().IgnoreError(); }

void StoreCore::StartWriting(CommitQueue::Counts counts) {
  for (const auto& file : devices_->files()) {
    const absl::Status marked = allocator_->SetFilled(file->row.file_id, file->filled_until.load() / kUnitBytes);
    TS_CHECK(marked.ok());
  }
  parked_ = std::make_unique<ParkedSpace>(allocator_.get(), &leases_, &guards_);
  reader_->set_parked(parked_.get());
  ephemeral_ = std::make_unique<EphemeralTable>(allocator_.get(), &leases_, memory_tier_.get());
  stager_ = std::make_unique<Stager>(Stager::Context{
      .devices = devices_.get(),
      .allocator = allocator_.get(),
      .options = &options_,
      .store_uuid = super_.store_uuid,
      .epoch = super_.epoch,
      .reclaim = [this] { Reclaim(); },
      .find = [this](const std::string& name) ABSL_NO_THREAD_SAFETY_ANALYSIS { return FindLeased(name, nullptr); },
      .first_sum = [this](const ObjectRecord& record) -> absl::StatusOr<uint64_t> {
        if (!record.sums.empty()) return record.sums[0];
        uint64_t sum = 0;
        TS_RETURN_IF_ERROR(reader_->ReadSums(record.generation, 0, {&sum, 1}));
        return sum;
      }});
  queue_ = std::make_unique<CommitQueue>(
      CommitQueue::Context{
          .index = index_.get(),
          .devices = devices_.get(),
          .allocator = allocator_.get(),
          .parked = parked_.get(),
          .ephemeral = ephemeral_.get(),
          .memory_tier = memory_tier_.get(),
          .stager = stager_.get(),
          .latch = &latch_,
          .published = &published_,
          .sequence = &commit_sequence_,
          .check_index_room = [this](uint64_t bytes, bool only_deletes) { return CheckIndexRoom(bytes, only_deletes); },
          .super = super_,
          .meters = &meters_,
          .idle_witness_ms = options_.idle_witness_ms},
      std::move(counts));
  mover_ = std::make_unique<Mover>(Mover::Context{.devices = devices_.get(),
                                                  .index = index_.get(),
                                                  .reader = reader_.get(),
                                                  .stager = stager_.get(),
                                                  .queue = queue_.get(),
                                                  .parked = parked_.get(),
                                                  .store_uuid = super_.store_uuid});
  if (options_.background_fill) {
    fill_ = std::make_unique<BackgroundFill>(devices_.get(), allocator_.get(),
                                             [this] { return queue_->idle_ms() > options_.idle_witness_ms; });
  }
  ShowCounters();
}

absl::Status StoreCore::CheckUsable() const {
  if (forked()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kForked,
                     absl::StrCat("this handle of ", path_, " belongs to process ", pid_, ", this is its child ",
                                  ProcessId(), ": open the store again here"));
  }
  if (closed_) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kClosed, absl::StrCat(path_, " is closed"));
  }
  return absl::OkStatus();
}

absl::Status StoreCore::CheckWritable() const {
  TS_RETURN_IF_ERROR(CheckUsable());
  if (!read_only_reason_.empty()) {
    return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kReadOnly,
                     absl::StrCat(path_, " is read-only: ", read_only_reason_));
  }
  return latch_.status();
}

void StoreCore::Reclaim() {
  if (fill_ != nullptr) fill_->StandBack();
  parked_->Reclaim();
  ephemeral_->Reclaim();
}

// --- writing ---

absl::StatusOr<Transaction> StoreCore::Begin() {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  auto state = std::make_unique<Transaction::State>();
  state->core = shared_from_this();
  return Transaction(std::move(state));
}

absl::Status StoreCore::Stage(Transaction::State& transaction, std::span<const PutItem> items) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  if (transaction.committed) return absl::FailedPreconditionError("the transaction was committed already");
  // skip_unchanged compares with what is committed. Where an earlier operation of this transaction may have changed
  // what the name stands for, there is nothing to compare with, and the item is written.
  bool names_move = false;
  absl::flat_hash_set<std::string> put_before;
  if (std::any_of(items.begin(), items.end(), [](const PutItem& item) { return item.skip_unchanged; })) {
    for (const CommitOp& op : transaction.request.ops) {
      if (op.kind == CommitOp::Kind::kPut) {
        put_before.insert(op.staged.name);
      } else if (op.kind != CommitOp::Kind::kRequire) {
        names_move = true;
      }
    }
  }
  const auto may_skip = [&](const PutItem& item) { return !names_move && put_before.insert(item.name).second; };
  const bool traced = meters_.tracing();
  const uint64_t begun_ns = SteadyNanoseconds();
  auto staging = stager_->Stage(items, transaction.request.ops.empty(), may_skip);
  const auto trace = [&](bool ok, uint64_t bytes) {
    if (!traced) return;
    meters_.Trace("stage", begun_ns, ok, items.size(), bytes, items.empty() ? nullptr : &items[0].name);
  };
  if (!staging.ok()) {
    trace(false, 0);
    meters_.CountError(Operation::kPut);
    return staging.status();
  }
  std::vector<StagedObject> staged = *std::move(staging);
  transaction.request.ops.reserve(transaction.request.ops.size() + staged.size());
  for (size_t i = 0; i < staged.size(); ++i) {
    CommitOp op;
    op.memory = StageInMemory(items[i], staged[i]);
    op.staged = std::move(staged[i]);
    transaction.request.ops.push_back(std::move(op));
  }
  puts_.fetch_add(items.size(), std::memory_order_relaxed);
  uint64_t bytes = 0;
  for (const PutItem& item : items) bytes += item.bytes.size();
  put_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  transaction.staged_bytes += bytes;
  transaction.staged_ns += SteadyNanoseconds() - begun_ns;
  trace(true, bytes);
  return absl::OkStatus();
}

absl::StatusOr<CommitResult> StoreCore::Commit(Transaction::State& transaction) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  if (std::exchange(transaction.committed, true)) {
    return absl::FailedPreconditionError("the transaction was committed already");
  }
  return CommitCounted(transaction);
}

absl::StatusOr<CommitResult> StoreCore::CommitCounted(Transaction::State& transaction) {
  const CommitRequest& request = transaction.request;
  uint64_t puts = 0;
  bool only_deletes = true;
  for (const CommitOp& op : request.ops) {
    puts += op.kind == CommitOp::Kind::kPut ? 1 : 0;
    only_deletes &= op.kind == CommitOp::Kind::kDelete || op.kind == CommitOp::Kind::kDeletePrefix ||
                    op.kind == CommitOp::Kind::kRequire;
  }
  const Operation operation = puts > 0 ? Operation::kPut : only_deletes ? Operation::kDelete : Operation::kNames;
  const bool changes_nothing = request.ops.empty();
  const bool traced = meters_.tracing();
  const uint64_t begun_ns = SteadyNanoseconds();
  absl::StatusOr<CommitResult> result = CommitUnlocked(transaction.request);
  if (changes_nothing) return result;
  if (traced) {
    meters_.Trace(NameOf(operation), begun_ns, result.ok(),
                  puts > 0      ? puts
                  : result.ok() ? result->names_changed
                                : 0,
                  transaction.staged_bytes, nullptr);
  }
  if (!result.ok()) {
    meters_.CountError(operation);
  } else {
    meters_.Time(operation, transaction.staged_ns + SteadyNanoseconds() - begun_ns);
    meters_.Count(operation, puts > 0 ? puts : result->names_changed, transaction.staged_bytes);
  }
  return result;
}

// Puts of ephemeral names alone need no commit: they go into the table at once, and never wait for a sync.
absl::Status StoreCore::PublishEphemeral(CommitRequest& request, CommitResult& result) {
  std::vector<StagedObject*> staged;
  for (CommitOp& op : request.ops) {
    staged.push_back(&op.staged);
    result.generations.push_back(op.staged.record->generation);
    // Before the name: whoever drops the object finds it in the memory tier.
    if (op.memory.role() == MemoryTier::Claim::Role::kFill) memory_tier_->Publish(op.memory);
  }
  absl::Status status = ephemeral_->Put(staged, [&](const std::string& name) -> absl::Status {
    TS_ASSIGN_OR_RETURN(const auto row, index_->FindName(name));
    if (!row.has_value()) return absl::OkStatus();
    return absl::AlreadyExistsError(
        absl::StrCat(Quoted(name), " is a durable object and cannot be replaced by an ephemeral one"));
  });
  if (!status.ok() && memory_tier_ != nullptr) {
    for (const StagedObject* object : staged) memory_tier_->Drop(object->record->generation);
  }
  return status;
}

absl::StatusOr<CommitResult> StoreCore::CommitUnlocked(CommitRequest& request) {
  const bool ephemeral_only =
      !request.ops.empty() && std::all_of(request.ops.begin(), request.ops.end(), [](const CommitOp& op) {
        return op.kind == CommitOp::Kind::kPut && op.staged.ephemeral &&
               op.staged.precondition.kind == Precondition::Kind::kNone;
      });
  if (ephemeral_only) {
    CommitResult result;
    TS_RETURN_IF_ERROR(PublishEphemeral(request, result));
    return result;
  }
  queue_->Run(request);
  if (request.result.ok()) unchanged_puts_.fetch_add(request.result->unchanged_count, std::memory_order_relaxed);
  return request.result;
}

absl::StatusOr<CommitResult> StoreCore::Put(std::span<const PutItem> items) {
  absl::StatusOr<CommitResult> result;
  for (int attempt = 0; attempt < kCommitTries; ++attempt) {
    TS_ASSIGN_OR_RETURN(Transaction transaction, Begin());
    TS_RETURN_IF_ERROR(transaction.Put(items));
    result = transaction.Commit();
    if (KindOf(result.status()) != ErrorKind::kStale) break;
  }
  return result;
}

absl::Status StoreCore::Flush() {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  CommitRequest request;
  request.write_witness = true;
  queue_->Run(request);
  return request.result.status();
}

absl::Status StoreCore::Backup(const std::string& directory) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckWritable());
  return index_->Backup(directory);
}

// --- reading ---

Object StoreCore::MakeObject(const std::string& name, FoundObject found, bool ephemeral) {
  Object object;
  object.core_ = shared_from_this();
  object.name_ = name;
  object.record_ = std::move(found.record);
  object.payload_ = std::move(found.payload);
  object.leased_ = true;
  object.ephemeral_ = ephemeral;
  return object;
}

absl::StatusOr<Object> StoreCore::FindLeased(const std::string& name, const View* view) {
  const IndexSnapshot* snapshot = view == nullptr ? nullptr : view->state_->snapshot.get();
  {
    // The guard keeps what the lookup finds from being freed until the lease is counted.
    const ReadGuards::Guard guard = guards_.Enter(published_);
    absl::StatusOr<FoundObject> found = index_->FindObject(name, snapshot);
    if (found.ok()) {
      leases_.Acquire(found->generation, found->record->place_seq);
      return MakeObject(name, *std::move(found), /*ephemeral=*/false);
    }
    if (!absl::IsNotFound(found.status())) return Annotate(found.status(), Quoted(name));
  }
  if (view == nullptr) {
    if (auto record = ephemeral_->FindAndLease(name); record != nullptr) {
      FoundObject found;
      found.generation = record->generation;
      found.record = std::move(record);
      return MakeObject(name, std::move(found), /*ephemeral=*/true);
    }
  }
  return absl::NotFoundError(absl::StrCat("no object named ", Quoted(name)));
}

absl::Status StoreCore::CheckView(const View* view) const {
  if (view == nullptr || view->state_->core.get() == this) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("the view is of another store, or of an earlier opening of ", path_));
}

absl::StatusOr<Object> StoreCore::Find(const std::string& name, const View* view) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  TS_RETURN_IF_ERROR(CheckView(view));
  TS_RETURN_IF_ERROR(ValidateName(name));
  TS_RETURN_IF_ERROR(FollowWriter(/*now=*/false));
  OperationTimer timer = OperationTimer::Sampling(meters_, Operation::kFind);
  absl::StatusOr<Object> found = FindLeased(name, view);
  if (absl::IsNotFound(found.status()) && index_mode_ == Index::Mode::kBesideWriter && view == nullptr) {
    TS_RETURN_IF_ERROR(FollowWriter(/*now=*/true));
    found = FindLeased(name, view);
  }
  // That a name is not there is an answer.
  timer.End(absl::IsNotFound(found.status()) ? absl::OkStatus() : found.status(), 1, 0, &name);
  return found;
}

absl::StatusOr<std::vector<Object>> StoreCore::FindMany(std::span<const std::string> names, const View* view) {
  std::unique_ptr<View> own;
  if (view == nullptr && names.size() > 1) {
    TS_ASSIGN_OR_RETURN(own, NewView());  // all of one commit
  }
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  TS_RETURN_IF_ERROR(CheckView(view));
  for (const std::string& name : names) TS_RETURN_IF_ERROR(ValidateName(name));
  const auto find_all = [&](const View* in)
                            ABSL_SHARED_LOCKS_REQUIRED(lifecycle_) -> absl::StatusOr<std::vector<Object>> {
    std::vector<Object> objects;
    objects.reserve(names.size());
    for (const std::string& name : names) {
      absl::StatusOr<Object> found = FindLeased(name, in);
      // An ephemeral object belongs to no commit.
      if (absl::IsNotFound(found.status()) && view == nullptr && in != nullptr && ephemeral_->Contains(name)) {
        found = FindLeased(name, nullptr);
      }
      if (!found.ok()) return found.status();
      objects.push_back(*std::move(found));
    }
    return objects;
  };
  OperationTimer timer(meters_, Operation::kFind);
  const auto counted = [&](absl::StatusOr<std::vector<Object>> objects) {
    timer.End(absl::IsNotFound(objects.status()) ? absl::OkStatus() : objects.status(), names.size(), 0);
    return objects;
  };
  if (own == nullptr) return counted(find_all(view));
  // From the record cache while no commit happens; else from the snapshot.
  const uint64_t before = commit_sequence_.load();
  if (before % 2 == 0 && index_mode_ != Index::Mode::kBesideWriter) {
    auto objects = find_all(nullptr);
    if (commit_sequence_.load() == before) return counted(std::move(objects));
  }
  return counted(find_all(own.get()));
}

absl::StatusOr<bool> StoreCore::Contains(const std::string& name, const View* view) {
  const absl::StatusOr<Object> found = Find(name, view);
  if (found.ok()) return true;
  if (absl::IsNotFound(found.status())) return false;
  return found.status();
}

absl::Status StoreCore::Read(std::span<const ReadRequest> requests, const ReadOptions& options) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  std::vector<ReadItem> items;
  items.reserve(requests.size());
  uint64_t bytes = 0;
  bool whole = true;
  for (const ReadRequest& request : requests) {
    const Object& object = *request.object;
    if (object.core_.get() != this) {
      return absl::InvalidArgumentError(absl::StrCat(Quoted(object.name_), " was found in another store"));
    }
    items.push_back({.name = &object.name_,
                     .record = object.record_.get(),
                     .payload = object.payload_.get(),
                     .offset = request.offset,
                     .to = request.to});
    bytes += request.to.size();
    whole &= request.to.size() == object.record_->logical_bytes;
  }
  const Operation operation = whole ? Operation::kGet : Operation::kSlice;
  OperationTimer timer =
      bytes <= kSampledBytesMax ? OperationTimer::Sampling(meters_, operation) : OperationTimer(meters_, operation);
  const auto read = [&] {
    return tiered_reader_ != nullptr ? tiered_reader_->Read(items, options)
                                     : reader_->Read(items, options.verify, options.priority);
  };
  absl::Status status = read();
  if (KindOf(status) == ErrorKind::kDeviceMissing && index_mode_ == Index::Mode::kBesideWriter) {
    TS_RETURN_IF_ERROR(AdoptNewFiles());
    status = read();
  }
  timer.End(status, requests.size(), bytes, requests.empty() ? nullptr : &requests[0].object->name_);
  return status.ok() ? status : ReadFailed(requests, status);
}

absl::Status StoreCore::ReadFailed(std::span<const ReadRequest> requests, const absl::Status& status) {
  if (index_mode_ == Index::Mode::kBesideWriter && absl::IsDataLoss(status)) {
    // A reader in another process holds no lease: the writer may have reused the space. Only damage to an object that
    // is still there is damage.
    TS_RETURN_IF_ERROR(FollowWriter(/*now=*/true));
    for (const ReadRequest& request : requests) TS_RETURN_IF_ERROR(ExplainMismatch(request, status));
  }
  if (absl::IsInternal(status) && parked_ != nullptr) {
    for (const ReadRequest& request : requests) parked_->MarkUnreadable(request.object->record_->generation);
  }
  return status;
}

absl::Status StoreCore::ExplainMismatch(const ReadRequest& request, const absl::Status& status) {
  const Object& object = *request.object;
  const auto row = index_->FindName(object.name_);
  if (!row.ok()) return row.status();
  if (row->has_value() && (*row)->generation == object.record_->generation) {
    const auto record = index_->FindRecord((*row)->generation, ((*row)->flags & NameRow::kInline) != 0);
    if (!record.ok()) return record.status();
    if ((*record)->place_seq == object.record_->place_seq) return absl::OkStatus();
  }
  return MakeError(absl::StatusCode::kAborted, ErrorKind::kStale,
                   absl::StrCat(Quoted(object.name_), " was replaced or moved by the writer while it was read (",
                                std::string(status.message()), ")"));
}

absl::Status StoreCore::FollowWriter(bool now) {
  if (index_mode_ != Index::Mode::kBesideWriter) return absl::OkStatus();
  absl::MutexLock lock(&follow_mutex_);
  if (!now && absl::Now() - followed_at_ < kFollowEvery) return absl::OkStatus();
  TS_RETURN_IF_ERROR(index_->CatchUp());
  TS_ASSIGN_OR_RETURN(const CommitRow commit, index_->ReadCommit());
  published_.store(std::max(published_.load(), commit.commit));
  followed_at_ = absl::Now();
  return absl::OkStatus();
}

absl::Status StoreCore::CatchUp() {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  return FollowWriter(/*now=*/true);
}

absl::Status StoreCore::Scan(const std::string& prefix, const std::string& start,
                             const std::function<bool(const std::string&, uint64_t)>& visit, const View* view) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  TS_RETURN_IF_ERROR(CheckView(view));
  TS_RETURN_IF_ERROR(FollowWriter(/*now=*/false));
  std::vector<std::pair<std::string, uint64_t>> extra;
  if (view == nullptr) extra = ephemeral_->List(prefix, start, SIZE_MAX);
  auto next = extra.begin();
  bool go_on = true;
  const auto visit_extra_before = [&](const std::string* name) {
    while (go_on && next != extra.end() && (name == nullptr || next->first < *name)) {
      go_on = visit(next->first, next->second);
      ++next;
    }
  };
  const IndexSnapshot* snapshot = view == nullptr ? nullptr : view->state_->snapshot.get();
  TS_RETURN_IF_ERROR(index_->ScanNames(
      prefix, start,
      [&](const std::string& name, const NameRow& row) {
        visit_extra_before(&name);
        // A name that became durable while the ephemeral one was listed is told once.
        if (go_on && next != extra.end() && next->first == name) ++next;
        if (go_on) go_on = visit(name, row.generation);
        return go_on;
      },
      snapshot));
  visit_extra_before(nullptr);
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<View>> StoreCore::NewView() {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  TS_RETURN_IF_ERROR(FollowWriter(/*now=*/true));
  auto state = std::make_unique<View::State>();
  state->core = shared_from_this();
  state->entered = guards_.EnterView(published_);  // before the snapshot: it sees this commit or a later one
  state->snapshot = index_->NewSnapshot();
  state->commit = state->snapshot->commit();
  absl::MutexLock views_lock(&views_mutex_);
  views_.insert(state.get());
  return std::unique_ptr<View>(new View(std::move(state)));
}

void StoreCore::LeaveView(View::State& view) {
  absl::MutexLock lock(&views_mutex_);
  if (views_.erase(&view) == 0) return;  // Close did it
  view.snapshot.reset();
  guards_.LeaveView(view.entered);
}

absl::StatusOr<std::vector<uint64_t>> StoreCore::ReadSums(const Object& object) {
  absl::ReaderMutexLock lock(&lifecycle_);
  TS_RETURN_IF_ERROR(CheckUsable());
  const ObjectRecord& record = *object.record_;
  if (!record.sums.empty() || record.placement == Placement::kInline) return record.sums;
  std::vector<uint64_t> sums(record.sums_count());
  TS_RETURN_IF_ERROR(
      Annotate(reader_->ReadSums(record.generation, 0, std::span<uint64_t>(sums)), Quoted(object.name_)));
  return sums;
}

BlockPosition StoreCore::PositionOf(const Object& object, uint64_t offset) const {
  const ObjectRecord& record = *object.record_;
  if (record.placement != Placement::kExtents || offset >= record.stored_bytes || !CheckLayout(record).ok()) return {};
  const FileRun run = RunsOf(record, offset, 1)[0];
  const DataFile* file = devices_->Find(run.file_id);
  return {file == nullptr ? "" : file->path, run.file_offset};
}

// --- closing ---

absl::Status StoreCore::WriteFreemap(const CommitQueue::Counts& counts) {
  Freemap freemap;
  freemap.store_uuid = super_.store_uuid;
  freemap.epoch = super_.epoch;
  freemap.commit = published_.load();
  freemap.name_count = counts.names;
  freemap.object_count = counts.objects;
  const std::vector<Extent> free = allocator_->FreeExtents();
  for (const FileSpace& space : allocator_->files()) {
    Freemap::FileMap map{.file = space.file, .counters = space.counters, .free = {}};
    for (const Extent& extent : free) {
      if (extent.file_id == space.file.file_id) map.free.push_back({extent.first_unit, extent.units});
    }
    freemap.files.push_back(std::move(map));
  }
  for (const auto& [generation, names] : counts.shared) freemap.shared.push_back({generation, names});
  std::sort(freemap.shared.begin(), freemap.shared.end(),
            [](const auto& a, const auto& b) { return a.generation < b.generation; });
  freemap.orphans = orphans_;
  return ReplaceFile(*disk_, JoinPath(path_, kFreemapName), EncodeFreemap(freemap));
}

absl::Status StoreCore::Close() {
  if (forked()) return absl::OkStatus();
  closing_.store(true);
  if (prefetcher_ != nullptr) prefetcher_->Stop();  // its steps take the lock
  absl::WriterMutexLock lock(&lifecycle_);
  if (std::exchange(closed_, true)) return absl::OkStatus();
  absl::Status status;
  live_file_.reset();
  if (queue_ != nullptr) {
    fill_.reset();
    queue_->Stop();
    if (!latch_.closed()) {
      // Nobody reads any more, so what was parked or scratch is free.
      parked_->ReclaimAll();
      ephemeral_->Clear();
      status = queue_->CommitBadUnits();
      if (status.ok()) status = index_->Flush();
      const SpaceCounters totals = allocator_->totals();
      // The map knows free and live; with anything else the next open scans.
      const bool accounted =
          totals[SpaceState::kReserved] == 0 && totals[SpaceState::kLimbo] == 0 && totals[SpaceState::kBad] == 0;
      if (status.ok() && accounted) status = WriteFreemap(queue_->final_counts());
      if (status.ok()) status = queue_->WriteWitness(/*clean=*/true);
    }
  }
  {
    absl::MutexLock views_lock(&views_mutex_);
    for (View::State* view : views_) {
      view->snapshot.reset();
      guards_.LeaveView(view->entered);
    }
    views_.clear();
  }
  mover_.reset();
  queue_.reset();
  RetireMemoryTier();
  tiered_reader_.reset();
  reader_.reset();
  index_.reset();
  locks_.clear();
  return status;
}

}  // namespace tensorshelf
