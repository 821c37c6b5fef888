#include "tests/testing/faulty_disk.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "engine/foundation/status_macros.h"
#include "tests/testing/fault_script.h"

namespace tensorshelf::testing {
namespace {

class FaultyFile : public File {
 public:
  FaultyFile(std::shared_ptr<FaultScript> script, std::unique_ptr<File> base)
      : script_(std::move(script)), base_(std::move(base)) {}

  File* base() const { return base_.get(); }
  const std::string& path() const override { return base_->path(); }
  const IoAlignment& alignment() const override { return base_->alignment(); }
  int direct_fd() const override { return base_->direct_fd(); }

  absl::StatusOr<uint64_t> Size() const override {
    return script_->Run<absl::StatusOr<uint64_t>>(Call::kSize, path(), [&] { return base_->Size(); });
  }
  absl::Status Sync() override {
    return script_->Run<absl::Status>(
        Call::kSync, path(), [&] { return base_->Sync(); }, [] { return absl::OkStatus(); });
  }
  absl::Status Allocate(uint64_t size) override {
    return script_->Run<absl::Status>(Call::kAllocate, path(), [&] { return base_->Allocate(size); });
  }
  absl::Status Truncate(uint64_t size) override {
    return script_->Run<absl::Status>(Call::kTruncate, path(), [&] { return base_->Truncate(size); });
  }

  int64_t PRead(uint64_t offset, std::span<std::byte> to) override {
    const std::optional<Fault> fault = script_->Enter(Call::kPRead, path(), offset, to.size());
    if (!fault.has_value()) return base_->PRead(offset, to);
    if (fault->effect == Effect::kShorten) return base_->PRead(offset, to.first(std::min(to.size(), fault->amount)));
    if (fault->effect == Effect::kFail) return -fault->error_number;
    if (fault->effect == Effect::kMisdirect) return base_->PRead(offset + fault->amount, to);
    const int64_t moved = base_->PRead(offset, to);
    if (fault->effect == Effect::kStale) {
      if (moved > 0) script_->MakeStale(path(), offset, to.first(static_cast<size_t>(moved)));
      return moved;
    }
    if (fault->effect != Effect::kFlipBit) return -fault->error_number;
    if (moved > 0) {
      const uint64_t bit = fault->amount % (static_cast<uint64_t>(moved) * 8);
      to[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    return moved;
  }

  int64_t PWrite(uint64_t offset, std::span<const std::byte> from) override {
    const std::optional<Fault> fault = script_->Enter(Call::kPWrite, path(), offset, from.size());
    if (!fault.has_value()) return base_->PWrite(offset, from);
    if (fault->effect == Effect::kLose) return static_cast<int64_t>(from.size());
    if (fault->effect == Effect::kMisdirect) return base_->PWrite(offset + fault->amount, from);
    if (fault->effect == Effect::kShorten) {
      return base_->PWrite(offset, from.first(std::min(from.size(), fault->amount)));
    }
    if (fault->effect == Effect::kFailAfter) base_->PWrite(offset, from);
    return -fault->error_number;
  }

 private:
  const std::shared_ptr<FaultScript> script_;
  const std::unique_ptr<File> base_;
};

}  // namespace

std::unique_ptr<File> NewFaultyFile(std::shared_ptr<FaultScript> script, std::unique_ptr<File> base) {
  return std::make_unique<FaultyFile>(std::move(script), std::move(base));
}

File* BaseOf(File* faulty_file) { return static_cast<FaultyFile*>(faulty_file)->base(); }

std::optional<Fault> FaultScript::Enter(Call call, const std::string& path, uint64_t offset, uint64_t length) {
  std::shared_ptr<const std::function<void(Call, const std::string&)>> on_call;
  {
    absl::MutexLock lock(&mutex_);
    on_call = on_call_;
  }
  if (on_call != nullptr) (*on_call)(call, path);

  absl::MutexLock lock(&mutex_);
  ++counts_[static_cast<size_t>(call)];
  std::optional<Fault> hit;
  for (Armed& armed : armed_) {
    const Fault& fault = armed.fault;
    if (fault.call != call || path.find(fault.path_part) == std::string::npos) continue;
    if (offset + length <= fault.offset_begin || offset >= fault.offset_end) continue;
    ++armed.seen;
    const bool in_reach = armed.seen >= fault.nth && (fault.times == 0 || armed.seen - fault.nth < fault.times);
    if (in_reach && !hit.has_value()) hit = fault;
  }
  if (hit.has_value()) ++fired_count_;
  return hit;
}

void FaultScript::Arm(Fault fault) {
  absl::MutexLock lock(&mutex_);
  armed_.push_back({std::move(fault)});
}

void FaultScript::DisarmAll() {
  absl::MutexLock lock(&mutex_);
  armed_.clear();
}

void FaultScript::set_on_call(std::function<void(Call, const std::string&)> on_call) {
  auto shared =
      on_call ? std::make_shared<const std::function<void(Call, const std::string&)>>(std::move(on_call)) : nullptr;
  absl::MutexLock lock(&mutex_);
  on_call_ = std::move(shared);
}

void FaultScript::set_reorder_seed(uint64_t seed) {
  absl::MutexLock lock(&mutex_);
  random_ = seed;
}

std::optional<size_t> FaultScript::Choose(size_t limit) {
  absl::MutexLock lock(&mutex_);
  if (!random_.has_value()) return std::nullopt;
  *random_ = *random_ * 6364136223846793005u + 1442695040888963407u;
  return static_cast<size_t>(*random_ >> 33) % limit;
}

void FaultScript::Remember(const std::string& path, std::string bytes) {
  absl::MutexLock lock(&mutex_);
  remembered_[path] = std::move(bytes);
}

void FaultScript::MakeStale(const std::string& path, uint64_t offset, std::span<std::byte> to) const {
  absl::MutexLock lock(&mutex_);
  const auto found = remembered_.find(path);
  if (found == remembered_.end() || offset >= found->second.size()) return;
  const size_t length = std::min<size_t>(to.size(), found->second.size() - offset);
  std::copy_n(reinterpret_cast<const std::byte*>(found->second.data()) + offset, length, to.begin());
}

uint64_t FaultScript::count(Call call) const {
  absl::MutexLock lock(&mutex_);
  return counts_[static_cast<size_t>(call)];
}

uint64_t FaultScript::fired_count() const {
  absl::MutexLock lock(&mutex_);
  return fired_count_;
}

FaultyDisk::FaultyDisk(Disk* base) : base_(base), script_(std::make_shared<FaultScript>()) {}

FaultyDisk::~FaultyDisk() = default;

void FaultyDisk::Arm(Fault fault) { script_->Arm(std::move(fault)); }
void FaultyDisk::DisarmAll() { script_->DisarmAll(); }
void FaultyDisk::Vanish(const std::string& path_part) {
  for (size_t call = 0; call < kCallCount; ++call) {
    script_->Arm({.call = static_cast<Call>(call), .times = 0, .path_part = path_part, .error_number = ENODEV});
  }
}
absl::Status FaultyDisk::RememberForStaleReads(const std::string& path) {
  TS_ASSIGN_OR_RETURN(std::string bytes, ReadFile(*base_, path, uint64_t{1} << 30));
  script_->Remember(path, std::move(bytes));
  return absl::OkStatus();
}
void FaultyDisk::ReorderCompletions(uint64_t seed) { script_->set_reorder_seed(seed); }
void FaultyDisk::OnCall(std::function<void(Call, const std::string&)> on_call) {
  script_->set_on_call(std::move(on_call));
}
uint64_t FaultyDisk::count(Call call) const { return script_->count(call); }
uint64_t FaultyDisk::fired_count() const { return script_->fired_count(); }

absl::StatusOr<std::unique_ptr<File>> FaultyDisk::Open(const std::string& path, const OpenOptions& options) {
  TS_ASSIGN_OR_RETURN(auto file, script_->Run<absl::StatusOr<std::unique_ptr<File>>>(
                                     Call::kOpen, path, [&] { return base_->Open(path, options); }));
  return NewFaultyFile(script_, std::move(file));
}

absl::StatusOr<std::unique_ptr<IoQueue>> FaultyDisk::NewQueue(size_t depth) {
  TS_ASSIGN_OR_RETURN(auto queue, script_->Run<absl::StatusOr<std::unique_ptr<IoQueue>>>(
                                      Call::kNewQueue, "", [&] { return base_->NewQueue(depth); }));
  return NewFaultyQueue(script_, std::move(queue));
}

absl::StatusOr<PathInfo> FaultyDisk::Stat(const std::string& path) {
  return script_->Run<absl::StatusOr<PathInfo>>(Call::kStat, path, [&] { return base_->Stat(path); });
}

absl::StatusOr<std::vector<std::string>> FaultyDisk::List(const std::string& directory) {
  return script_->Run<absl::StatusOr<std::vector<std::string>>>(Call::kList, directory,
                                                                [&] { return base_->List(directory); });
}

absl::Status FaultyDisk::MakeDirectory(const std::string& path, uint32_t mode) {
  return script_->Run<absl::Status>(Call::kMakeDirectory, path, [&] { return base_->MakeDirectory(path, mode); });
}

absl::Status FaultyDisk::Rename(const std::string& from, const std::string& to) {
  return script_->Run<absl::Status>(Call::kRename, to, [&] { return base_->Rename(from, to); });
}

absl::Status FaultyDisk::Remove(const std::string& path) {
  return script_->Run<absl::Status>(Call::kRemove, path, [&] { return base_->Remove(path); });
}

absl::Status FaultyDisk::SyncDirectory(const std::string& path) {
  return script_->Run<absl::Status>(
      Call::kSyncDirectory, path, [&] { return base_->SyncDirectory(path); }, [] { return absl::OkStatus(); });
}

absl::StatusOr<FileSystemSpace> FaultyDisk::Space(const std::string& path) {
  return script_->Run<absl::StatusOr<FileSystemSpace>>(Call::kSpace, path, [&] { return base_->Space(path); });
}

absl::StatusOr<std::unique_ptr<FileLock>> FaultyDisk::Lock(const std::string& path, const std::string& holder) {
  return script_->Run<absl::StatusOr<std::unique_ptr<FileLock>>>(Call::kLock, path,
                                                                 [&] { return base_->Lock(path, holder); });
}

absl::StatusOr<std::string> FaultyDisk::LockHolder(const std::string& path) {
  return script_->Run<absl::StatusOr<std::string>>(Call::kLockHolder, path, [&] { return base_->LockHolder(path); });
}

}  // namespace tensorshelf::testing
