#include "store/store.h"

#include <filesystem>
#include <utility>

#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"
#include "store/compact.h"
#include "store/drain.h"
#include "store/grow_store.h"
#include "store/live_page.h"
#include "store/move.h"
#include "store/space_map.h"
#include "store/store_core.h"

namespace tensorshelf {
namespace {

// In a child of the process that opened the store nothing may be released: locks may be held by threads that do not
// exist here, and the index's files are the parent's. The reference is leaked instead.
template <typename T>
void DropOrLeak(std::shared_ptr<T>& core) {
  if (core != nullptr && core->forked()) {
    new std::shared_ptr<T>(std::move(core));
  } else {
    core.reset();
  }
}

}  // namespace

std::string AbsolutePath(const std::string& path) {
  std::string absolute = std::filesystem::absolute(path).lexically_normal().string();
  while (absolute.size() > 1 && absolute.back() == '/') absolute.pop_back();
  return absolute;
}

Object::Object(Object&& other) noexcept
    : core_(std::move(other.core_)),
      name_(std::move(other.name_)),
      record_(std::move(other.record_)),
      payload_(std::move(other.payload_)),
      leased_(std::exchange(other.leased_, false)),
      ephemeral_(other.ephemeral_) {}

Object& Object::operator=(Object&& other) noexcept {
  if (this != &other) {
    this->~Object();
    new (this) Object(std::move(other));
  }
  return *this;
}

Object::~Object() {
  if (leased_ && !core_->forked()) core_->Release(*record_);
  DropOrLeak(core_);
}

absl::StatusOr<Metadata> Object::metadata() const {
  const std::string* bytes = record_->FindTlv(kTlvMetadata);
  return bytes == nullptr ? Metadata{} : DecodeMetadata(BytesOf(*bytes));
}

View::View(std::unique_ptr<State> state) : state_(std::move(state)) {}
View::~View() {
  if (state_->core->forked()) {
    state_->snapshot.release();
  } else {
    state_->core->LeaveView(*state_);
  }
  DropOrLeak(state_->core);
}
uint64_t View::commit() const { return state_->commit; }

Transaction::Transaction(std::unique_ptr<State> state) : state_(std::move(state)) {}
Transaction::Transaction(Transaction&&) noexcept = default;
Transaction::~Transaction() {
  if (state_ == nullptr) return;
  if (state_->core->forked()) {
    state_.release();
    return;
  }
  state_->request.ops.clear();  // space goes back while the core is alive
}

absl::Status Transaction::Put(std::span<const PutItem> items) { return state_->core->Stage(*state_, items); }

namespace {

void AddOp(CommitRequest& request, CommitOp::Kind kind, const std::string& name, const std::string& to, bool replace) {
  CommitOp op;
  op.kind = kind;
  op.name = name;
  op.to = to;
  op.replace = replace;
  request.ops.push_back(std::move(op));
}

}  // namespace

void Transaction::Delete(const std::string& name, bool missing_ok) {
  AddOp(state_->request, CommitOp::Kind::kDelete, name, "", false);
  state_->request.ops.back().missing_ok = missing_ok;
}
void Transaction::Rename(const std::string& from, const std::string& to, bool replace) {
  AddOp(state_->request, CommitOp::Kind::kRename, from, to, replace);
}
void Transaction::Clone(const std::string& from, const std::string& to, bool replace) {
  AddOp(state_->request, CommitOp::Kind::kClone, from, to, replace);
}
void Transaction::DeletePrefix(const std::string& prefix) {
  AddOp(state_->request, CommitOp::Kind::kDeletePrefix, prefix, "", false);
}
void Transaction::RenamePrefix(const std::string& from, const std::string& to, bool replace) {
  AddOp(state_->request, CommitOp::Kind::kRenamePrefix, from, to, replace);
}
void Transaction::ClonePrefix(const std::string& from, const std::string& to, bool replace) {
  AddOp(state_->request, CommitOp::Kind::kClonePrefix, from, to, replace);
}
void Transaction::Require(const std::string& name, const Precondition& precondition) {
  AddOp(state_->request, CommitOp::Kind::kRequire, name, "", false);
  state_->request.ops.back().precondition = precondition;
}
absl::StatusOr<CommitResult> Transaction::Commit() { return state_->core->Commit(*state_); }

Store::Store(std::shared_ptr<StoreCore> core) : core_(std::move(core)) {}
Store::~Store() {
  core_->Close().IgnoreError();
  DropOrLeak(core_);
}

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const std::string& path, const StoreOptions& options) {
  TS_ASSIGN_OR_RETURN(auto core, StoreCore::Open(AbsolutePath(path), options));
  return std::unique_ptr<Store>(new Store(std::move(core)));
}

absl::Status Store::Close() { return core_->Close(); }
absl::StatusOr<CommitResult> Store::Put(std::span<const PutItem> items) { return core_->Put(items); }
absl::StatusOr<Transaction> Store::Begin() { return core_->Begin(); }
absl::StatusOr<Object> Store::Find(const std::string& name, const View* view) { return core_->Find(name, view); }
absl::StatusOr<std::vector<Object>> Store::FindMany(std::span<const std::string> names, const View* view) {
  return core_->FindMany(names, view);
}
absl::StatusOr<bool> Store::Contains(const std::string& name, const View* view) { return core_->Contains(name, view); }
absl::Status Store::Read(std::span<const ReadRequest> requests, const ReadOptions& options) {
  return core_->Read(requests, options);
}
absl::StatusOr<std::vector<MemoryLease>> Store::Lease(std::span<const Object> objects, const ReadOptions& options) {
  return core_->Lease(objects, options);
}
absl::Status Store::Prefetch(std::span<const std::string> names, const ReadOptions& options) {
  return core_->Prefetch(names, options);
}
absl::Status Store::WaitForPrefetch() { return core_->WaitForPrefetch(); }
absl::Status Store::Scan(const std::string& prefix, const std::string& start,
                         const std::function<bool(const std::string& name, uint64_t generation)>& visit,
                         const View* view) {
  return core_->Scan(prefix, start, visit, view);
}
absl::StatusOr<std::unique_ptr<View>> Store::NewView() { return core_->NewView(); }
absl::StatusOr<std::unique_ptr<ObjectCursor>> Store::NewCursor(const std::string& prefix, const std::string& start) {
  return core_->NewCursor(prefix, start);
}
absl::StatusOr<SpaceMap> Store::MapSpace() { return core_->MapSpace(); }
absl::StatusOr<std::vector<uint64_t>> Store::ReadSums(const Object& object) { return core_->ReadSums(object); }
BlockPosition Store::PositionOf(const Object& object, uint64_t offset) const {
  return core_->PositionOf(object, offset);
}
absl::StatusOr<std::vector<MoveResult>> Store::Move(std::span<const MoveRequest> requests) {
  return core_->Move(requests);
}
absl::StatusOr<CompactReport> Store::Compact(const CompactOptions& options) { return core_->Compact(options); }
absl::StatusOr<GrowReport> Store::Grow(const GrowOptions& options) { return core_->Grow(options); }
absl::StatusOr<DrainReport> Store::Drain(const std::string& device, const DrainOptions& options) {
  return core_->Drain(device, options);
}
absl::Status Store::Flush() { return core_->Flush(); }
absl::Status Store::Backup(const std::string& directory) { return core_->Backup(directory); }
absl::Status Store::CatchUp() { return core_->CatchUp(); }
const std::string& Store::path() const { return core_->path(); }
absl::Status Store::StartTrace(size_t events_max) { return core_->StartTrace(events_max); }
absl::StatusOr<std::string> Store::StopTrace() { return core_->StopTrace(); }
StoreInfo Store::info() const { return core_->info(); }
StoreStats Store::stats() const { return core_->stats(); }
LivePage Store::live_page() const { return core_->live_page(); }
absl::Status Store::counters_status() const { return core_->counters_status(); }
const std::shared_ptr<MemoryPool>& Store::memory_pool() const { return core_->memory_pool(); }

}  // namespace tensorshelf
