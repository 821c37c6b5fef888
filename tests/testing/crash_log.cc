#include "tests/testing/crash_log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <utility>

#include "engine/foundation/status_macros.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf::testing {
namespace {

using Kind = LoggedOp::Kind;

constexpr uint64_t kExportedBytesMax = uint64_t{64} << 20;

std::string Text(const std::byte* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

class LoggingFile : public File {
 public:
  LoggingFile(std::unique_ptr<File> base, CrashLog* log) : base_(std::move(base)), log_(log), path_(base_->path()) {}

  const std::string& path() const override { return base_->path(); }
  const IoAlignment& alignment() const override { return base_->alignment(); }
  int direct_fd() const override { return base_->direct_fd(); }
  absl::StatusOr<uint64_t> Size() const override { return base_->Size(); }
  int64_t PRead(uint64_t offset, std::span<std::byte> to) override { return base_->PRead(offset, to); }
  int64_t PWrite(uint64_t offset, std::span<const std::byte> from) override {
    const int64_t moved = base_->PWrite(offset, from);
    if (moved > 0) log_->Add({Kind::kWrite, path_, "", offset, Text(from.data(), static_cast<size_t>(moved)), 0});
    return moved;
  }
  absl::Status Sync() override {
    const size_t began = log_->size();
    TS_RETURN_IF_ERROR(base_->Sync());
    log_->Add({Kind::kSync, path_, "", 0, "", began});
    return absl::OkStatus();
  }
  absl::Status Allocate(uint64_t size) override {
    TS_ASSIGN_OR_RETURN(const uint64_t before, base_->Size());
    TS_RETURN_IF_ERROR(base_->Allocate(size));
    if (size > before) log_->Add({Kind::kResize, path_, "", size, "", 0});
    return absl::OkStatus();
  }
  absl::Status Truncate(uint64_t size) override {
    TS_RETURN_IF_ERROR(base_->Truncate(size));
    log_->Add({Kind::kResize, path_, "", size, "", 0});
    return absl::OkStatus();
  }

  void LogWrite(const IoOp& op, int64_t moved) {
    log_->Add({Kind::kWrite, path_, "", op.offset, Text(op.memory, static_cast<size_t>(moved)), 0});
  }

 private:
  const std::unique_ptr<File> base_;
  CrashLog* const log_;
  const std::string path_;
};

class LoggingQueue : public IoQueue {
 public:
  explicit LoggingQueue(std::unique_ptr<IoQueue> base) : base_(std::move(base)) {}
  size_t depth() const override { return base_->depth(); }
  size_t in_flight() const override { return base_->in_flight(); }
  int Submit(std::span<IoOp* const> ops) override { return base_->Submit(ops); }
  int Reap(size_t at_least, std::span<IoCompletion> completions, int64_t timeout_us) override {
    const int count = base_->Reap(at_least, completions, timeout_us);
    for (int i = 0; i < count; ++i) {
      const IoCompletion& done = completions[static_cast<size_t>(i)];
      if (done.op->kind == IoKind::kWrite && done.result > 0) {
        static_cast<LoggingFile*>(done.op->file)->LogWrite(*done.op, done.result);
      }
    }
    return count;
  }

 private:
  const std::unique_ptr<IoQueue> base_;
};

}  // namespace

void CrashLog::Add(LoggedOp op) {
  absl::MutexLock lock(&mutex_);
  ops_.push_back(std::move(op));
}

size_t CrashLog::size() const {
  absl::MutexLock lock(&mutex_);
  return ops_.size();
}

absl::StatusOr<std::unique_ptr<File>> LoggingDisk::Open(const std::string& path, const OpenOptions& options) {
  TS_ASSIGN_OR_RETURN(auto file, base_->Open(path, options));
  if (options.create) log_->Add({Kind::kCreate, path, "", 0, "", 0});
  return std::make_unique<LoggingFile>(std::move(file), log_);
}

absl::StatusOr<std::unique_ptr<IoQueue>> LoggingDisk::NewQueue(size_t depth) {
  TS_ASSIGN_OR_RETURN(auto queue, base_->NewQueue(depth));
  return std::make_unique<LoggingQueue>(std::move(queue));
}

absl::Status LoggingDisk::MakeDirectory(const std::string& path, uint32_t mode) {
  TS_RETURN_IF_ERROR(base_->MakeDirectory(path, mode));
  log_->Add({Kind::kMakeDirectory, path, "", 0, "", 0});
  return absl::OkStatus();
}

absl::Status LoggingDisk::Rename(const std::string& from, const std::string& to) {
  TS_RETURN_IF_ERROR(base_->Rename(from, to));
  log_->Add({Kind::kRename, from, to, 0, "", 0});
  return absl::OkStatus();
}

absl::Status LoggingDisk::Remove(const std::string& path) {
  TS_RETURN_IF_ERROR(base_->Remove(path));
  log_->Add({Kind::kRemove, path, "", 0, "", 0});
  return absl::OkStatus();
}

absl::Status LoggingDisk::SyncDirectory(const std::string& path) {
  const size_t began = log_->size();
  TS_RETURN_IF_ERROR(base_->SyncDirectory(path));
  log_->Add({Kind::kSyncDirectory, path, "", 0, "", began});
  return absl::OkStatus();
}

absl::Status LoggingObserver::Before(const IndexFileOp& op) {
  if (op.kind == IndexFileOp::Kind::kSync || op.kind == IndexFileOp::Kind::kSyncDirectory) {
    absl::MutexLock lock(&mutex_);
    sync_began_[std::this_thread::get_id()] = log_->size();
  }
  return absl::OkStatus();
}

void LoggingObserver::After(const IndexFileOp& op) {
  if (op.kind == IndexFileOp::Kind::kRead) return;
  LoggedOp logged{Kind::kWrite, op.path, "", 0, "", 0};
  switch (op.kind) {
    case IndexFileOp::Kind::kCreate:
      logged.kind = Kind::kCreate;
      break;
    case IndexFileOp::Kind::kAppend:
      logged.offset = op.offset;
      logged.bytes = Text(op.data.data(), op.data.size());
      break;
    case IndexFileOp::Kind::kSync:
    case IndexFileOp::Kind::kSyncDirectory: {
      logged.kind = op.kind == IndexFileOp::Kind::kSync ? Kind::kSync : Kind::kSyncDirectory;
      absl::MutexLock lock(&mutex_);
      logged.covers_until = sync_began_[std::this_thread::get_id()];
      break;
    }
    case IndexFileOp::Kind::kRename:
      logged.kind = Kind::kRename;
      logged.target = op.target;
      break;
    case IndexFileOp::Kind::kDelete:
      logged.kind = Kind::kRemove;
      break;
    case IndexFileOp::Kind::kTruncate:
      logged.kind = Kind::kResize;
      logged.offset = op.offset;
      break;
    case IndexFileOp::Kind::kMakeDirectory:
      logged.kind = Kind::kMakeDirectory;
      break;
    case IndexFileOp::Kind::kLink:
      ADD_FAILURE() << "a hard link, which the replay does not know: " << op.path;
      return;
    case IndexFileOp::Kind::kRead:
      return;
  }
  log_->Add(std::move(logged));
}

CrashReplay::CrashReplay(const CrashLog& log, const std::string& directory) : log_(log) {
  for (size_t slash = directory.find('/', 1);; slash = directory.find('/', slash + 1)) {
    const std::string path = directory.substr(0, slash);
    EXPECT_OK(disk_.MakeDirectory(path, 0700));
    EXPECT_OK(disk_.SyncDirectory(std::filesystem::path(path).parent_path().string()));
    if (slash == std::string::npos) break;
  }
  const std::vector<LoggedOp>& ops = log_.ops();
  for (size_t at = 0; at < ops.size(); ++at) {
    if (ops[at].kind != Kind::kSync) continue;
    for (size_t other = ops[at].covers_until; other < at; ++other) {
      const bool races = ops[other].kind == Kind::kWrite || ops[other].kind == Kind::kResize;
      if (!races || ops[other].path != ops[at].path) continue;
      early_syncs_.emplace(ops[at].covers_until, at);
      break;
    }
  }
}

void CrashReplay::AdvanceTo(size_t end) {
  const std::vector<LoggedOp>& ops = log_.ops();
  for (; next_ < std::min(end, ops.size()); ++next_) {
    const auto [first, last] = early_syncs_.equal_range(next_);
    for (auto sync = first; sync != last; ++sync) {
      ASSERT_OK_AND_ASSIGN(auto file, disk_.Open(ops[sync->second].path, {.writable = true, .direct = false}));
      ASSERT_OK(file->Sync());
    }
    Play(ops[next_]);
  }
}

void CrashReplay::Play(const LoggedOp& op) {
  const auto open = [&] { return disk_.Open(op.path, {.writable = true, .direct = false}); };
  switch (op.kind) {
    case Kind::kMark:
      break;
    case Kind::kCreate: {
      ASSERT_OK_AND_ASSIGN(const PathInfo info, disk_.Stat(op.path));
      const bool there = info.kind != PathInfo::Kind::kAbsent;
      ASSERT_OK_AND_ASSIGN(auto file, disk_.Open(op.path, {.writable = true, .create = !there, .direct = false}));
      if (there) {
        ASSERT_OK(file->Truncate(0));
      }
      break;
    }
    case Kind::kWrite: {
      ASSERT_OK_AND_ASSIGN(auto file, open());
      ASSERT_OK(WriteExactly(*file, op.offset, std::as_bytes(std::span(op.bytes))));
      break;
    }
    case Kind::kResize: {
      ASSERT_OK_AND_ASSIGN(auto file, open());
      ASSERT_OK(file->Truncate(op.offset));
      break;
    }
    case Kind::kSync: {
      // One that raced with writes to its file was played where it began: it covers what came before that.
      if (std::any_of(early_syncs_.begin(), early_syncs_.end(),
                      [&](const auto& early) { return early.second == next_; })) {
        break;
      }
      ASSERT_OK_AND_ASSIGN(auto file, open());
      ASSERT_OK(file->Sync());
      break;
    }
    case Kind::kRename:
      ASSERT_OK(disk_.Rename(op.path, op.target));
      break;
    case Kind::kRemove:
      ASSERT_OK(disk_.Remove(op.path));
      break;
    case Kind::kMakeDirectory:
      ASSERT_OK(disk_.MakeDirectory(op.path, 0700));
      break;
    case Kind::kSyncDirectory:
      ASSERT_OK(disk_.SyncDirectory(op.path));
      break;
  }
}

absl::Status CrashReplay::Export(MemoryDisk& crashed, const std::string& directory) {
  std::filesystem::remove_all(directory);
  TS_ASSIGN_OR_RETURN(const PathInfo there, crashed.Stat(directory));
  if (there.kind != PathInfo::Kind::kDirectory) return absl::OkStatus();
  std::filesystem::create_directories(directory);
  TS_ASSIGN_OR_RETURN(const std::vector<std::string> names, crashed.List(directory));
  for (const std::string& name : names) {
    const std::string path = directory + "/" + name;
    TS_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(crashed, path, kExportedBytesMax));
    std::ofstream(path, std::ios::binary) << bytes;
  }
  return absl::OkStatus();
}

}  // namespace tensorshelf::testing
