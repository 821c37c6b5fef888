// Goal: what a damaged log looks like to the two probes is what the store's open relies on, and a failing file
// operation never costs an acknowledged commit. Method: damage a copy of a log of 1000 synced commits; fail the k-th
// file operation of a workload for every k, then reopen without faults.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "index/index.h"
#include "tests/index/temporary_index.h"
#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::NameOf;
using testing::SmallRecord;
using testing::TemporaryDirectory;

using Mode = Index::Mode;
namespace fs = std::filesystem;

std::string NameNumber(uint64_t number) { return absl::StrCat("name", number); }

// Commit `number` puts name number and object number.
absl::Status CommitOne(Index& index, uint64_t number) {
  auto batch = index.NewBatch();
  if (absl::Status status = batch->PutObject(SmallRecord(number), {}); !status.ok()) return status;
  batch->PutName(NameNumber(number), NameOf(number));
  return index.Commit(*batch, number);
}

class LogDamageTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kCommits = 1000;

  void SetUp() override {
    auto index = Index::Open(original_, Mode::kCreate, options_);
    ASSERT_OK(index);
    for (uint64_t number = 1; number <= kCommits; ++number) ASSERT_OK(CommitOne(**index, number));
  }

  static fs::path LogOf(const std::string& path) {
    fs::path largest;
    uint64_t bytes = 0;
    for (const auto& entry : fs::directory_iterator(path)) {
      if (entry.path().extension() != ".log" || entry.file_size() < bytes) continue;
      largest = entry.path();
      bytes = entry.file_size();
    }
    return largest;
  }

  // Calls `damage` on the log of a fresh copy; answers the commits that the two probes see, 0 for DataLoss.
  std::pair<uint64_t, uint64_t> ProbesAfter(const std::function<void(const fs::path& log)>& damage) {
    copy_ = directory_.File(absl::StrCat("copy", ++copies_));
    fs::copy(original_, copy_);
    damage(LogOf(copy_));
    const auto commit = [&](ProbeMode mode) {
      const auto probe = ProbeIndex(copy_, mode, options_);
      if (!probe.ok()) {
        EXPECT_FAILS(probe, absl::StatusCode::kDataLoss, "index");
      }
      return probe.ok() ? probe->commit.commit : 0;
    };
    return {commit(ProbeMode::kPointInTime), commit(ProbeMode::kSkipCorruptedRecords)};
  }

  // What a read-write open then makes of it.
  uint64_t OpenedCommit() {
    const auto index = Index::Open(copy_, Mode::kReadWrite, options_);
    EXPECT_OK(index);
    return index.ok() ? (*index)->ReadCommit()->commit : 0;
  }

  TemporaryDirectory directory_;
  const std::string original_ = directory_.File("original");
  IndexOptions options_;
  std::string copy_;
  int copies_ = 0;
};

void Overwrite(const fs::path& path, uint64_t offset, const std::string& bytes) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(static_cast<std::streamoff>(offset));
  file << bytes;
}

void FlipBit(const fs::path& path, uint64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(offset));
  const char byte = static_cast<char>(file.get() ^ 0x04);
  file.seekp(static_cast<std::streamoff>(offset));
  file.put(byte);
}

using Probes = std::pair<uint64_t, uint64_t>;

TEST_F(LogDamageTest, AWholeLogGivesAllInBothModes) {
  EXPECT_EQ(ProbesAfter([](const fs::path&) {}), Probes(kCommits, kCommits));
  EXPECT_EQ(OpenedCommit(), kCommits);
}

TEST_F(LogDamageTest, ATornTailGivesOneLessInBothModes) {
  EXPECT_EQ(ProbesAfter([](const fs::path& log) { fs::resize_file(log, fs::file_size(log) - 40); }),
            Probes(kCommits - 1, kCommits - 1));
  EXPECT_EQ(OpenedCommit(), kCommits - 1);
  EXPECT_EQ(ProbesAfter([](const fs::path& log) { Overwrite(log, fs::file_size(log) - 64, std::string(64, '\0')); }),
            Probes(kCommits - 1, kCommits - 1));
  EXPECT_EQ(OpenedCommit(), kCommits - 1);
}

TEST_F(LogDamageTest, ZerosBehindTheTailAreNothing) {
  EXPECT_EQ(ProbesAfter([](const fs::path& log) { fs::resize_file(log, fs::file_size(log) + 4096); }),
            Probes(kCommits, kCommits));
  EXPECT_EQ(OpenedCommit(), kCommits);
}

TEST_F(LogDamageTest, AFlippedBitInsideShowsAsAGapBetweenTheModes) {
  for (const int part : {1, 2, 5, 9}) {
    const auto [point_in_time, skip] =
        ProbesAfter([&](const fs::path& log) { FlipBit(log, fs::file_size(log) / 10 * part); });
    EXPECT_GE(skip, point_in_time + 2) << part << "/10 of the log";
    EXPECT_LT(point_in_time, kCommits) << part << "/10 of the log";
  }
  const auto [point_in_time, skip] =
      ProbesAfter([](const fs::path& log) { FlipBit(log, fs::file_size(log) - (40 << 10)); });
  EXPECT_GE(skip, point_in_time + 2);
}

TEST_F(LogDamageTest, ADamagedManifestOrCurrentIsRefused) {
  const Probes refused(0, 0);
  EXPECT_EQ(ProbesAfter([](const fs::path& log) { Overwrite(log.parent_path() / "CURRENT", 0, "xxxx"); }), refused);
  EXPECT_EQ(ProbesAfter([](const fs::path& log) {
              for (const auto& entry : fs::directory_iterator(log.parent_path())) {
                if (entry.path().filename().string().starts_with("MANIFEST")) FlipBit(entry.path(), 50);
              }
            }),
            refused);
}

// Fails one operation that changes files, and with `rest` all after it.
class Fault : public IndexFileObserver {
 public:
  Fault(int64_t at, absl::Status status, bool rest) : at_(at), status_(std::move(status)), rest_(rest) {}

  absl::Status Before(const IndexFileOp& op) override {
    if (op.kind == IndexFileOp::Kind::kRead) return absl::OkStatus();
    const int64_t number = ++count_;
    if (number < at_ || (number > at_ && !rest_)) return absl::OkStatus();
    fired_ = true;
    return status_;
  }
  bool fired() const { return fired_; }

 private:
  const int64_t at_;
  const absl::Status status_;
  const bool rest_;
  std::atomic<int64_t> count_{0};
  std::atomic<bool> fired_{false};
};

// Opens, commits with two flushes between, closes. Answers the last acknowledged commit; `*tried`: the last one begun.
uint64_t Workload(const std::string& path, const IndexOptions& options, uint64_t acknowledged, uint64_t* tried) {
  *tried = acknowledged;
  auto index = Index::Open(path, Mode::kReadWrite, options);
  if (!index.ok()) return acknowledged;
  bool failed = false;
  for (int round = 0; round < 6; ++round) {
    if (round == 2 || round == 4) (*index)->Flush().IgnoreError();  // whatever comes of it shows in the commits
    const absl::Status status = CommitOne(**index, acknowledged + 1);
    if (failed) {
      EXPECT_FAILS(status, absl::StatusCode::kFailedPrecondition, absl::StrCat("commit ", *tried, " is unknown"));
      EXPECT_FAILS((*index)->Flush(), absl::StatusCode::kFailedPrecondition, "unknown");
    } else {
      *tried = acknowledged + 1;
      failed = !status.ok();
      if (failed) {
        EXPECT_FAILS(status, absl::StatusCode::kInternal, absl::StrCat("commit ", *tried));
      }
    }
    if (status.ok()) ++acknowledged;
  }
  return acknowledged;
}

void FailEachOperation(const absl::Status& error, bool rest) {
  // Small: in a file system in memory, RocksDB's preallocation of a log costs its size.
  const IndexOptions whole{.memtable_bytes = 256 << 10};
  TemporaryDirectory directory;
  const std::string original = directory.File("original");
  {
    auto created = Index::Open(original, Mode::kCreate, whole);
    ASSERT_OK(created);
    ASSERT_OK(CommitOne(**created, 1));
  }
  for (int64_t at = 1;; at += testing::kScaleDown) {
    SCOPED_TRACE(absl::StrCat("operation ", at, " and ", rest ? "all after it" : "no other", ": ", error.ToString()));
    const std::string path = directory.File("copy");
    fs::remove_all(path);
    fs::copy(original, path);
    Fault fault(at, error, rest);
    IndexOptions options = whole;
    options.observer = &fault;
    uint64_t tried = 0;
    const uint64_t acknowledged = Workload(path, options, 1, &tried);

    ASSERT_OK_AND_ASSIGN(const IndexProbe probe, ProbeIndex(path, ProbeMode::kPointInTime, whole));
    ASSERT_OK_AND_ASSIGN(auto index, Index::Open(path, Mode::kReadWrite, whole));
    const uint64_t commit = index->ReadCommit()->commit;
    EXPECT_EQ(commit, probe.commit.commit);
    EXPECT_GE(commit, acknowledged);
    EXPECT_LE(commit, tried);
    for (uint64_t number = 1; number <= commit; ++number) EXPECT_OK(index->FindObject(NameNumber(number)));
    EXPECT_FAILS(index->FindObject(NameNumber(commit + 1)), absl::StatusCode::kNotFound, "");
    ASSERT_OK(CommitOne(*index, commit + 1));
    if (!fault.fired()) {
      EXPECT_EQ(acknowledged, 7u);
      EXPECT_GT(at, 30);
      return;
    }
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(IndexFaultTest, AnIoErrorAnywhereLosesNothing) { FailEachOperation(absl::InternalError("injected"), false); }
TEST(IndexFaultTest, ADiskThatDiesLosesNothing) { FailEachOperation(absl::InternalError("injected"), true); }
TEST(IndexFaultTest, AFullDiskLosesNothing) { FailEachOperation(absl::ResourceExhaustedError("injected"), true); }

TEST(IndexFaultTest, OpenNamesAFullDisk) {
  TemporaryDirectory directory;
  Fault fault(1, absl::ResourceExhaustedError("injected"), true);
  IndexOptions options;
  options.observer = &fault;
  EXPECT_FAILS(Index::Open(directory.File("index"), Mode::kCreate, options), absl::StatusCode::kResourceExhausted,
               "injected");
}

// Appends and syncs that the observer saw, replayed into memory.
class Replay : public IndexFileObserver {
 public:
  void After(const IndexFileOp& op) override {
    absl::MutexLock lock(&mutex_);
    if (op.kind == IndexFileOp::Kind::kCreate) files_[op.path].clear();
    if (op.kind == IndexFileOp::Kind::kDelete) files_.erase(op.path);
    if (op.kind == IndexFileOp::Kind::kRename) {
      files_[op.target] = std::move(files_[op.path]);
      files_.erase(op.path);
    }
    if (op.kind == IndexFileOp::Kind::kAppend) {
      std::string& file = files_[op.path];
      file.resize(std::max<size_t>(file.size(), op.offset + op.data.size()));
      std::copy_n(reinterpret_cast<const char*>(op.data.data()), op.data.size(), file.begin() + op.offset);
    }
    if (op.kind == IndexFileOp::Kind::kTruncate) files_[op.path].resize(op.offset);
  }
  std::map<std::string, std::string> files() {
    absl::MutexLock lock(&mutex_);
    return files_;
  }

 private:
  absl::Mutex mutex_;
  std::map<std::string, std::string> files_ ABSL_GUARDED_BY(mutex_);
};

TEST(IndexFaultTest, TheObserverSeesEveryByte) {
  TemporaryDirectory directory;
  const std::string path = directory.File("index");
  Replay replay;
  IndexOptions options;
  options.observer = &replay;
  for (const Mode mode : {Mode::kCreate, Mode::kReadWrite}) {
    ASSERT_OK_AND_ASSIGN(auto index, Index::Open(path, mode, options));
    const uint64_t first = index->ReadCommit()->commit + 1;
    for (uint64_t number = first; number < first + 20; ++number) ASSERT_OK(CommitOne(*index, number));
    ASSERT_OK(index->Flush());
    ASSERT_OK(CommitOne(*index, first + 20));
  }
  const auto files = replay.files();
  size_t compared = 0;
  for (const auto& entry : fs::directory_iterator(path)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    ASSERT_TRUE(files.contains(entry.path())) << entry.path();
    EXPECT_EQ(files.at(entry.path()) == bytes, true) << entry.path();
    ++compared;
  }
  EXPECT_EQ(compared, files.size());
}

}  // namespace
}  // namespace tensorshelf
