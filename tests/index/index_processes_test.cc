// Goal: a reader beside a live writer sees whole commits and follows it; a killed writer loses nothing it acknowledged.
// Method: a writer in a process of its own reports each commit through a pipe, while this process reads or kills it.

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "index/index.h"
#include "tests/index/temporary_index.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::SmallRecord;
using testing::TemporaryDirectory;

using Mode = Index::Mode;

class LiveWriter {
 public:
  explicit LiveWriter(const std::string& path) {
    int ends[2];
    if (::pipe(ends) != 0) return;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    std::string program = TENSORSHELF_LIVE_WRITER;
    std::string argument = path;
    char* arguments[] = {program.data(), argument.data(), nullptr};
    if (::posix_spawn(&process_, program.c_str(), &actions, nullptr, arguments, environ) != 0) process_ = -1;
    posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    acknowledgements_ = ends[0];
  }
  ~LiveWriter() {
    Kill();
    if (acknowledgements_ >= 0) ::close(acknowledgements_);
  }

  // Waits for the next acknowledged commit; 0: the writer is gone.
  uint64_t Next() {
    uint64_t n = 0;
    return ::read(acknowledgements_, &n, sizeof n) == sizeof n ? n : 0;
  }
  void Kill() {
    if (process_ <= 0) return;
    ::kill(process_, SIGKILL);
    int status = 0;
    ::waitpid(process_, &status, 0);
    process_ = -1;
  }

 private:
  pid_t process_ = -1;
  int acknowledgements_ = -1;
};

std::vector<uint64_t> Generations(Index& index) {
  std::vector<uint64_t> generations;
  EXPECT_OK(index.ScanNames("name", "", [&](const std::string&, const NameRow& row) {
    generations.push_back(row.generation);
    return true;
  }));
  return generations;
}

TEST(IndexProcessesTest, AReaderFollowsALiveWriter) {
  TemporaryDirectory directory;
  const std::string path = directory.File("index");
  LiveWriter writer(path);
  ASSERT_EQ(writer.Next(), 1u);
  EXPECT_FAILS(Index::Open(path, Mode::kReadWrite, {}), absl::StatusCode::kFailedPrecondition, "locked");
  ASSERT_OK_AND_ASSIGN(auto reader, Index::Open(path, Mode::kBesideWriter, {}));
  uint64_t acknowledged = 1;
  uint64_t seen = 0;
  for (int round = 0; round < 150 && !HasFailure(); ++round) {
    acknowledged = writer.Next();
    ASSERT_NE(acknowledged, 0u);
    ASSERT_OK(reader->CatchUp());
    ASSERT_OK_AND_ASSIGN(const CommitRow commit, reader->ReadCommit());
    EXPECT_GE(commit.commit, acknowledged);
    EXPECT_GE(commit.commit, seen);
    seen = commit.commit;
    EXPECT_EQ(Generations(*reader), std::vector<uint64_t>(50, seen));
    // Twice: from the files, and from the cache, which must not outlive the next catch-up.
    for (int again = 0; again < 2; ++again) {
      ASSERT_OK_AND_ASSIGN(const FoundObject found, reader->FindObject("name7"));
      EXPECT_EQ(found.generation, seen);
      EXPECT_EQ(*found.record, SmallRecord(seen));
    }
  }
  const auto snapshot = reader->NewSnapshot();
  EXPECT_EQ(snapshot->commit(), seen);
  EXPECT_FAILS(reader->CatchUp(), absl::StatusCode::kUnavailable, "snapshot");
  ASSERT_OK_AND_ASSIGN(const FoundObject found, reader->FindObject("name7", snapshot.get()));
  EXPECT_EQ(found.generation, seen);
}

TEST(IndexProcessesTest, ReadersOpenWhileFilesComeAndGo) {
  TemporaryDirectory directory;
  const std::string path = directory.File("index");
  LiveWriter writer(path);
  ASSERT_EQ(writer.Next(), 1u);
  for (int round = 0; round < 30; ++round) {
    const uint64_t acknowledged = writer.Next();
    ASSERT_NE(acknowledged, 0u);
    ASSERT_OK_AND_ASSIGN(auto reader, Index::Open(path, Mode::kBesideWriter, {}));
    EXPECT_GE(reader->ReadCommit()->commit, acknowledged);
    EXPECT_EQ(Generations(*reader), std::vector<uint64_t>(50, reader->ReadCommit()->commit));
  }
}

TEST(IndexProcessesTest, AKilledWriterLosesNothingThatItAcknowledged) {
  for (const uint64_t kill_after : {1, 2, 17, 199, 200, 201, 250}) {
    SCOPED_TRACE(absl::StrCat("killed after commit ", kill_after));
    TemporaryDirectory directory;
    const std::string path = directory.File("index");
    LiveWriter writer(path);
    uint64_t acknowledged = 0;
    while (acknowledged < kill_after) {
      acknowledged = writer.Next();
      ASSERT_NE(acknowledged, 0u);
    }
    writer.Kill();
    while (const uint64_t late = writer.Next()) acknowledged = late;
    ASSERT_OK_AND_ASSIGN(const IndexProbe point_in_time, ProbeIndex(path, ProbeMode::kPointInTime, {}));
    ASSERT_OK_AND_ASSIGN(const IndexProbe skip, ProbeIndex(path, ProbeMode::kSkipCorruptedRecords, {}));
    EXPECT_EQ(point_in_time.commit, skip.commit);
    ASSERT_OK_AND_ASSIGN(auto index, Index::Open(path, Mode::kReadWrite, {}));
    ASSERT_OK_AND_ASSIGN(const CommitRow commit, index->ReadCommit());
    EXPECT_EQ(commit, point_in_time.commit);
    EXPECT_GE(commit.commit, acknowledged);
    EXPECT_LE(commit.commit, acknowledged + 1);
    EXPECT_EQ(Generations(*index), std::vector<uint64_t>(50, commit.commit));
  }
}

}  // namespace
}  // namespace tensorshelf
