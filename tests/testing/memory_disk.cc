#include "tests/testing/memory_disk.h"

#include <algorithm>
#include <cerrno>
#include <deque>
#include <map>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/foundation/status_macros.h"
#include "tests/testing/memory_disk_tree.h"

namespace tensorshelf::testing {

struct MemoryDisk::State {
  explicit State(const Options& options) : options(options) {}

  // The node at `path`, or nullptr.
  std::shared_ptr<Node> Find(const std::string& path) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void AddEntry(Node& directory, const std::string& name, std::shared_ptr<Node> node)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // Counts the bytes of `file` at its new size; false, counting nothing, when they go beyond the capacity.
  bool Charge(const Node& file, uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  void RemoveName(Node& file) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // 0 or ENOSPC.
  int Resize(Node& file, uint64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  int64_t Write(Node& file, uint64_t offset, std::span<const std::byte> from) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);

  const Options options;

  absl::Mutex mutex;
  std::shared_ptr<Node> root ABSL_GUARDED_BY(mutex) = std::make_shared<Node>();
  uint64_t next_sequence ABSL_GUARDED_BY(mutex) = 0;
  uint64_t restart_count ABSL_GUARDED_BY(mutex) = 0;
  uint64_t file_bytes ABSL_GUARDED_BY(mutex) = 0;                          // sum of the sizes of files that have a name
  std::map<std::string, std::string> lock_holders ABSL_GUARDED_BY(mutex);  // by path
};

namespace {

std::vector<std::string> Components(const std::string& path) {
  std::vector<std::string> components;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string component = path.substr(begin, end - begin);
    if (!component.empty() && component != ".") components.push_back(component);
    begin = end + 1;
  }
  return components;
}

struct Place {
  std::string directory;
  std::string name;
};

Place PlaceOf(const std::string& path) {
  Place place;
  for (const std::string& component : Components(path)) {
    if (!place.name.empty()) absl::StrAppend(&place.directory, "/", place.name);
    place.name = component;
  }
  return place;
}

// One spelling for a path, for the table of locks.
std::string Canonical(const std::string& path) {
  const Place place = PlaceOf(path);
  return absl::StrCat(place.directory, "/", place.name);
}

uint64_t Mix(uint64_t value) {  // splitmix64
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

bool Coin(uint64_t seed, uint64_t a, uint64_t b = 0) { return (Mix(Mix(Mix(seed) ^ a) ^ b) & 1) != 0; }

class MemoryFile : public File {
 public:
  MemoryFile(std::shared_ptr<MemoryDisk::State> state, std::shared_ptr<Node> node, std::string path,
             const OpenOptions& options, uint64_t restart_count)
      : state_(std::move(state)),
        node_(std::move(node)),
        path_(std::move(path)),
        writable_(options.writable),
        alignment_(options.direct ? state_->options.alignment : IoAlignment{.memory = 1, .offset = 1, .direct = false}),
        restart_count_(restart_count) {}

  const std::string& path() const override { return path_; }
  const IoAlignment& alignment() const override { return alignment_; }
  int direct_fd() const override { return -1; }

  absl::StatusOr<uint64_t> Size() const override {
    absl::MutexLock lock(&state_->mutex);
    if (Dead()) return IoError(EIO, absl::StrCat("fstat ", path_));
    return node_->live.size();
  }

  int64_t PRead(uint64_t offset, std::span<std::byte> to) override {
    absl::MutexLock lock(&state_->mutex);
    if (Dead()) return -EIO;
    return static_cast<int64_t>(node_->live.Read(offset, to));
  }

  int64_t PWrite(uint64_t offset, std::span<const std::byte> from) override {
    absl::MutexLock lock(&state_->mutex);
    if (Dead()) return -EIO;
    if (!writable_) return -EBADF;
    return state_->Write(*node_, offset, from);
  }

  absl::Status Sync() override {
    absl::MutexLock lock(&state_->mutex);
    if (Dead()) return IoError(EIO, absl::StrCat("fdatasync ", path_));
    node_->SyncData();
    return absl::OkStatus();
  }

  absl::Status Allocate(uint64_t size) override {
    absl::MutexLock lock(&state_->mutex);
    if (Dead()) return IoError(EIO, absl::StrCat("fallocate ", path_));
    if (!writable_) return IoError(EBADF, absl::StrCat("fallocate ", path_));
    if (size <= node_->live.size()) return absl::OkStatus();
    return Resized(size, "fallocate");
  }

  absl::Status Truncate(uint64_t size) override {
    absl::MutexLock lock(&state_->mutex);
    if (Dead()) return IoError(EIO, absl::StrCat("ftruncate ", path_));
    if (!writable_) return IoError(EINVAL, absl::StrCat("ftruncate ", path_));
    return Resized(size, "ftruncate");
  }

 private:
  bool Dead() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) { return restart_count_ != state_->restart_count; }

  absl::Status Resized(uint64_t size, const char* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(state_->mutex) {
    const int error = state_->Resize(*node_, size);
    if (error == 0) return absl::OkStatus();
    return IoError(error, absl::StrCat(call, " ", path_, " to ", size, " bytes"));
  }

  const std::shared_ptr<MemoryDisk::State> state_;
  const std::shared_ptr<Node> node_;
  const std::string path_;
  const bool writable_;
  const IoAlignment alignment_;
  const uint64_t restart_count_;
};

// Transfers at Submit, reports at Reap.
class MemoryQueue : public IoQueue {
 public:
  explicit MemoryQueue(size_t depth) : depth_(depth) {}

  size_t depth() const override { return depth_; }
  size_t in_flight() const override { return completions_.size(); }

  int Submit(std::span<IoOp* const> ops) override {
    int taken = 0;
    for (IoOp* op : ops) {
      if (completions_.size() == depth_) break;
      completions_.push_back({op, Transfer(*op)});
      ++taken;
    }
    return taken == 0 && !ops.empty() ? -EAGAIN : taken;
  }

  // Never waits: what could still come is here already.
  int Reap(size_t /*at_least*/, std::span<IoCompletion> completions, int64_t /*timeout_us*/) override {
    const size_t count = std::min(completions.size(), completions_.size());
    for (size_t i = 0; i < count; ++i) {
      completions[i] = completions_.front();
      completions_.pop_front();
    }
    return static_cast<int>(count);
  }

 private:
  static int64_t Transfer(const IoOp& op) {
    const IoAlignment& alignment = op.file->alignment();
    if (alignment.direct && (reinterpret_cast<uintptr_t>(op.memory) % alignment.memory != 0 ||
                             op.offset % alignment.offset != 0 || op.length % alignment.offset != 0)) {
      return -EINVAL;
    }
    return op.kind == IoKind::kRead ? op.file->PRead(op.offset, {op.memory, op.length})
                                    : op.file->PWrite(op.offset, {op.memory, op.length});
  }

  const size_t depth_;
  std::deque<IoCompletion> completions_;
};

class MemoryLock : public FileLock {
 public:
  MemoryLock(std::shared_ptr<MemoryDisk::State> state, std::string path, uint64_t restart_count)
      : state_(std::move(state)), path_(std::move(path)), restart_count_(restart_count) {}
  ~MemoryLock() override {
    absl::MutexLock lock(&state_->mutex);
    if (restart_count_ == state_->restart_count) state_->lock_holders.erase(path_);
  }

 private:
  const std::shared_ptr<MemoryDisk::State> state_;
  const std::string path_;
  const uint64_t restart_count_;
};

}  // namespace

CrashPolicy CrashPolicy::DropUnsynced() {
  return {.keeps_sector = [](const Sector&) { return false; }, .keeps_change = [](const Change&) { return false; }};
}

CrashPolicy CrashPolicy::KeepUnsynced() {
  return {.keeps_sector = [](const Sector&) { return true; }, .keeps_change = [](const Change&) { return true; }};
}

CrashPolicy CrashPolicy::RandomWrites(uint64_t seed) {
  return {.keeps_sector = [seed](const Sector& sector) { return Coin(seed, sector.write_sequence); },
          .keeps_change = [seed](const Change& change) { return Coin(seed, change.sequence); }};
}

CrashPolicy CrashPolicy::RandomSectors(uint64_t seed) {
  return {.keeps_sector = [seed](const Sector& sector) { return Coin(seed, sector.write_sequence, sector.offset); },
          .keeps_change = [seed](const Change& change) { return Coin(seed, change.sequence); }};
}

std::shared_ptr<Node> MemoryDisk::State::Find(const std::string& path) const {
  std::shared_ptr<Node> node = root;
  for (const std::string& component : Components(path)) {
    const auto entry = node->live_entries.find(component);
    if (entry == node->live_entries.end()) return nullptr;
    node = entry->second;
  }
  return node;
}

void MemoryDisk::State::AddEntry(Node& directory, const std::string& name, std::shared_ptr<Node> node) {
  directory.live_entries[name] = node;
  directory.unsynced_entries.push_back({.sequence = next_sequence++, .removed = "", .added = name, .node = node});
}

bool MemoryDisk::State::Charge(const Node& file, uint64_t size) {
  if (!file.has_name) return true;
  const uint64_t others = file_bytes - file.live.size();
  if (size > file.live.size() && others + size > options.capacity_bytes) return false;
  file_bytes = others + size;
  return true;
}

void MemoryDisk::State::RemoveName(Node& file) {
  file_bytes -= file.live.size();
  file.has_name = false;
}

int MemoryDisk::State::Resize(Node& file, uint64_t size) {
  if (!Charge(file, size)) return ENOSPC;
  file.live.Resize(size);
  file.unsynced_data.push_back({.sequence = next_sequence++, .resize = true, .offset = size, .bytes = {}});
  return 0;
}

int64_t MemoryDisk::State::Write(Node& file, uint64_t offset, std::span<const std::byte> from) {
  if (!Charge(file, std::max<uint64_t>(file.live.size(), offset + from.size()))) return -ENOSPC;
  file.live.Write(offset, from);
  file.unsynced_data.push_back(
      {.sequence = next_sequence++, .resize = false, .offset = offset, .bytes = {from.begin(), from.end()}});
  return static_cast<int64_t>(from.size());
}

MemoryDisk::MemoryDisk() : MemoryDisk(Options()) {}

MemoryDisk::MemoryDisk(Options options) : MemoryDisk(std::make_shared<State>(options)) {
  absl::MutexLock lock(&state_->mutex);
  state_->root->is_directory = true;
}

MemoryDisk::MemoryDisk(std::shared_ptr<State> state) : state_(std::move(state)) {}

MemoryDisk::~MemoryDisk() = default;

absl::StatusOr<std::unique_ptr<File>> MemoryDisk::Open(const std::string& path, const OpenOptions& options) {
  absl::MutexLock lock(&state_->mutex);
  std::shared_ptr<Node> node = state_->Find(path);
  if (options.create) {
    if (node != nullptr) return IoError(EEXIST, absl::StrCat("create ", path));
    const Place place = PlaceOf(path);
    const std::shared_ptr<Node> directory = state_->Find(place.directory);
    if (directory == nullptr) return IoError(ENOENT, absl::StrCat("create ", path));
    if (!directory->is_directory) return IoError(ENOTDIR, absl::StrCat("create ", path));
    node = std::make_shared<Node>();
    node->path = path;
    state_->AddEntry(*directory, place.name, node);
  }
  if (node == nullptr) return IoError(ENOENT, absl::StrCat("open ", path));
  if (node->is_directory) return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  return std::make_unique<MemoryFile>(state_, std::move(node), path, options, state_->restart_count);
}

absl::StatusOr<std::unique_ptr<IoQueue>> MemoryDisk::NewQueue(size_t depth) {
  if (depth == 0) return absl::InvalidArgumentError("a queue needs a depth of at least 1");
  return std::make_unique<MemoryQueue>(depth);
}

absl::StatusOr<PathInfo> MemoryDisk::Stat(const std::string& path) {
  absl::MutexLock lock(&state_->mutex);
  const std::shared_ptr<Node> node = state_->Find(path);
  if (node == nullptr) return PathInfo{};
  return PathInfo{.kind = node->is_directory ? PathInfo::Kind::kDirectory : PathInfo::Kind::kFile,
                  .size = node->live.size()};
}

absl::StatusOr<std::vector<std::string>> MemoryDisk::List(const std::string& directory) {
  absl::MutexLock lock(&state_->mutex);
  const std::shared_ptr<Node> node = state_->Find(directory);
  if (node == nullptr) return IoError(ENOENT, absl::StrCat("opendir ", directory));
  if (!node->is_directory) return IoError(ENOTDIR, absl::StrCat("opendir ", directory));
  std::vector<std::string> names;
  for (const auto& [name, child] : node->live_entries) names.push_back(name);
  return names;
}

absl::Status MemoryDisk::MakeDirectory(const std::string& path, uint32_t /*mode*/) {
  absl::MutexLock lock(&state_->mutex);
  if (state_->Find(path) != nullptr) return IoError(EEXIST, absl::StrCat("mkdir ", path));
  const Place place = PlaceOf(path);
  const std::shared_ptr<Node> parent = state_->Find(place.directory);
  if (parent == nullptr) return IoError(ENOENT, absl::StrCat("mkdir ", path));
  if (!parent->is_directory) return IoError(ENOTDIR, absl::StrCat("mkdir ", path));
  auto node = std::make_shared<Node>();
  node->path = path;
  node->is_directory = true;
  state_->AddEntry(*parent, place.name, std::move(node));
  return absl::OkStatus();
}

absl::Status MemoryDisk::Rename(const std::string& from, const std::string& to) {
  const std::string context = absl::StrCat("rename ", from, " to ", to);
  absl::MutexLock lock(&state_->mutex);
  const Place source = PlaceOf(from);
  const Place target = PlaceOf(to);
  const std::shared_ptr<Node> node = state_->Find(from);
  const std::shared_ptr<Node> source_directory = state_->Find(source.directory);
  const std::shared_ptr<Node> target_directory = state_->Find(target.directory);
  if (node == nullptr || target_directory == nullptr) return IoError(ENOENT, context);
  if (!target_directory->is_directory) return IoError(ENOTDIR, context);
  const std::shared_ptr<Node> replaced = state_->Find(to);
  if (replaced == node) return absl::OkStatus();
  if (replaced != nullptr) {
    if (replaced->is_directory != node->is_directory) return IoError(node->is_directory ? ENOTDIR : EISDIR, context);
    if (!replaced->live_entries.empty()) return IoError(ENOTEMPTY, context);
    state_->RemoveName(*replaced);
  }

  const uint64_t sequence = state_->next_sequence++;
  source_directory->live_entries.erase(source.name);
  target_directory->live_entries[target.name] = node;
  node->path = to;
  if (source_directory == target_directory) {
    target_directory->unsynced_entries.push_back({sequence, source.name, target.name, node});
  } else {
    source_directory->unsynced_entries.push_back({sequence, source.name, "", node});
    target_directory->unsynced_entries.push_back({sequence, "", target.name, node});
  }
  return absl::OkStatus();
}

absl::Status MemoryDisk::Remove(const std::string& path) {
  absl::MutexLock lock(&state_->mutex);
  const Place place = PlaceOf(path);
  const std::shared_ptr<Node> node = state_->Find(path);
  if (node == nullptr) return IoError(ENOENT, absl::StrCat("remove ", path));
  if (!node->live_entries.empty()) return IoError(ENOTEMPTY, absl::StrCat("remove ", path));
  if (node == state_->root) return IoError(EBUSY, absl::StrCat("remove ", path));
  const std::shared_ptr<Node> directory = state_->Find(place.directory);
  directory->live_entries.erase(place.name);
  directory->unsynced_entries.push_back({state_->next_sequence++, place.name, "", node});
  state_->RemoveName(*node);
  return absl::OkStatus();
}

absl::Status MemoryDisk::SyncDirectory(const std::string& path) {
  absl::MutexLock lock(&state_->mutex);
  const std::shared_ptr<Node> node = state_->Find(path);
  if (node == nullptr) return IoError(ENOENT, absl::StrCat("fsync of directory ", path));
  if (!node->is_directory) return IoError(ENOTDIR, absl::StrCat("fsync of directory ", path));
  node->SyncEntries();
  return absl::OkStatus();
}

absl::StatusOr<FileSystemSpace> MemoryDisk::Space(const std::string& path) {
  absl::MutexLock lock(&state_->mutex);
  if (state_->Find(path) == nullptr) return IoError(ENOENT, absl::StrCat("statvfs ", path));
  const uint64_t capacity = state_->options.capacity_bytes;
  return FileSystemSpace{.total_bytes = capacity, .available_bytes = capacity - state_->file_bytes};
}

absl::StatusOr<std::unique_ptr<FileLock>> MemoryDisk::Lock(const std::string& path, const std::string& holder) {
  absl::MutexLock lock(&state_->mutex);
  const std::string canonical = Canonical(path);
  if (const auto held = state_->lock_holders.find(canonical); held != state_->lock_holders.end()) {
    return absl::FailedPreconditionError(absl::StrCat(path, " is locked by ", held->second));
  }
  std::shared_ptr<Node> node = state_->Find(path);
  if (node == nullptr) {
    const Place place = PlaceOf(path);
    const std::shared_ptr<Node> directory = state_->Find(place.directory);
    if (directory == nullptr) return IoError(ENOENT, absl::StrCat("open ", path));
    node = std::make_shared<Node>();
    node->path = path;
    state_->AddEntry(*directory, place.name, node);
  }
  if (node->is_directory) return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  int64_t written = -state_->Resize(*node, 0);
  if (written == 0) written = state_->Write(*node, 0, std::as_bytes(std::span(holder)));
  if (written < 0) return IoError(static_cast<int>(-written), absl::StrCat("write of the holder into ", path));
  state_->lock_holders[canonical] = holder;
  return std::make_unique<MemoryLock>(state_, canonical, state_->restart_count);
}

absl::StatusOr<std::string> MemoryDisk::LockHolder(const std::string& path) {
  absl::MutexLock lock(&state_->mutex);
  const auto held = state_->lock_holders.find(Canonical(path));
  if (held == state_->lock_holders.end()) return absl::NotFoundError(absl::StrCat(path, " is not locked"));
  return held->second;
}

void MemoryDisk::CrashAndRestart(const CrashPolicy& policy) {
  absl::MutexLock lock(&state_->mutex);
  state_->root = TreeAfterCrash(*state_->root, policy);
  state_->file_bytes = FileBytes(*state_->root);
  ++state_->restart_count;
  state_->lock_holders.clear();
}

std::unique_ptr<MemoryDisk> MemoryDisk::AfterCrash(const CrashPolicy& policy) const {
  auto after = std::make_shared<State>(state_->options);
  {
    absl::MutexLock lock(&state_->mutex);
    absl::MutexLock lock_after(&after->mutex);
    after->root = TreeAfterCrash(*state_->root, policy);
    after->file_bytes = FileBytes(*after->root);
    after->next_sequence = state_->next_sequence;
  }
  return std::unique_ptr<MemoryDisk>(new MemoryDisk(std::move(after)));
}

absl::Status MemoryDisk::FlipBits(const std::string& path, uint64_t offset, uint8_t mask) {
  absl::MutexLock lock(&state_->mutex);
  const std::shared_ptr<Node> node = state_->Find(path);
  if (node == nullptr) return IoError(ENOENT, absl::StrCat("flip bits in ", path));
  for (SparseBytes* image : {&node->live, &node->durable}) {
    std::byte byte{};
    if (image->Read(offset, {&byte, 1}) == 1) {
      byte ^= std::byte{mask};
      image->Write(offset, {&byte, 1});
    }
  }
  return absl::OkStatus();
}

size_t MemoryDisk::unsynced_count() const {
  absl::MutexLock lock(&state_->mutex);
  return UnsyncedCount(*state_->root);
}

}  // namespace tensorshelf::testing
