// Goal: what every disk shares keeps its promises on every failing call. Method: ReadExactly, WriteExactly, ReadFile
// and ReplaceFile run on the memory disk behind the faulty one, with each system call failing in its turn.

#include "engine/disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "tests/testing/faulty_disk.h"
#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::Call;
using testing::CrashPolicy;
using testing::Effect;
using testing::FaultyDisk;
using testing::MemoryDisk;

std::span<const std::byte> BytesOf(const std::string& text) { return std::as_bytes(std::span(text)); }

class DiskTest : public ::testing::Test {
 protected:
  std::unique_ptr<File> CreateWith(const std::string& path, const std::string& text) {
    auto file = disk_.Open(path, {.writable = true, .create = true});
    EXPECT_OK(file);
    EXPECT_OK(WriteExactly(**file, 0, BytesOf(text)));
    return *std::move(file);
  }
  std::string ReadBack(Disk& disk, const std::string& path) {
    const absl::StatusOr<std::string> text = ReadFile(disk, path, 1000);
    return text.ok() ? *text : text.status().ToString();
  }

  MemoryDisk base_;
  FaultyDisk disk_{&base_};
};

TEST_F(DiskTest, ErrnoBecomesTheStatusOfTheContractAndKeepsItsName) {
  EXPECT_FAILS(IoError(ENOENT, "open a"), absl::StatusCode::kNotFound, "open a: ENOENT");
  EXPECT_FAILS(IoError(EEXIST, "open a"), absl::StatusCode::kAlreadyExists, "EEXIST");
  EXPECT_FAILS(IoError(EACCES, "open a"), absl::StatusCode::kPermissionDenied, "EACCES");
  EXPECT_FAILS(IoError(EROFS, "open a"), absl::StatusCode::kPermissionDenied, "EROFS");
  EXPECT_FAILS(IoError(ENOSPC, "write a"), absl::StatusCode::kResourceExhausted, "ENOSPC");
  EXPECT_FAILS(IoError(EDQUOT, "write a"), absl::StatusCode::kResourceExhausted, "EDQUOT");
  EXPECT_FAILS(IoError(EIO, "read a"), absl::StatusCode::kInternal, "EIO");
  EXPECT_FAILS(IoError(99999, "read a"), absl::StatusCode::kInternal, "errno 99999");
}

TEST_F(DiskTest, ReadExactlyGoesOnAfterShortReadsAndSignals) {
  const auto file = CreateWith("/a", "0123456789");
  disk_.Arm({.call = Call::kPRead, .nth = 1, .effect = Effect::kShorten, .amount = 3});
  disk_.Arm({.call = Call::kPRead, .nth = 2, .error_number = EINTR});
  disk_.Arm({.call = Call::kPRead, .nth = 3, .effect = Effect::kShorten, .amount = 1});
  std::string text(10, '?');
  EXPECT_OK(ReadExactly(*file, 0, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, "0123456789");
  EXPECT_EQ(disk_.fired_count(), 3u);
}

TEST_F(DiskTest, ReadExactlyTellsAnErrorAndAnEarlyEnd) {
  const auto file = CreateWith("/a", "0123456789");
  std::string text(8, '?');
  EXPECT_FAILS(ReadExactly(*file, 5, std::as_writable_bytes(std::span(text))), absl::StatusCode::kDataLoss,
               "end of file in /a: wanted 8 bytes at 5, got 5");
  disk_.Arm({.call = Call::kPRead, .error_number = EIO});
  EXPECT_FAILS(ReadExactly(*file, 0, std::as_writable_bytes(std::span(text))), absl::StatusCode::kInternal,
               "read of 8 bytes at 0 of /a: EIO");
}

TEST_F(DiskTest, WriteExactlyGoesOnAfterShortWritesAndSignals) {
  const auto file = CreateWith("/a", "");
  disk_.Arm({.call = Call::kPWrite, .nth = 1, .effect = Effect::kShorten, .amount = 3});
  disk_.Arm({.call = Call::kPWrite, .nth = 2, .error_number = EINTR});
  EXPECT_OK(WriteExactly(*file, 0, BytesOf("0123456789")));
  EXPECT_EQ(ReadBack(disk_, "/a"), "0123456789");
  EXPECT_EQ(disk_.fired_count(), 2u);
}

TEST_F(DiskTest, WriteExactlyTellsAnErrorAndDoesNotSpinOnAWriteOfNothing) {
  const auto file = CreateWith("/a", "");
  disk_.Arm({.call = Call::kPWrite, .nth = 1, .error_number = ENOSPC});
  disk_.Arm({.call = Call::kPWrite, .nth = 2, .effect = Effect::kShorten, .amount = 0});
  EXPECT_FAILS(WriteExactly(*file, 0, BytesOf("0123")), absl::StatusCode::kResourceExhausted, "at 0 of /a: ENOSPC");
  EXPECT_FAILS(WriteExactly(*file, 0, BytesOf("0123")), absl::StatusCode::kInternal, "EIO");
}

TEST_F(DiskTest, ReadFileRefusesALongerFile) {
  CreateWith("/a", "0123456789");
  EXPECT_FAILS(ReadFile(disk_, "/a", 9), absl::StatusCode::kDataLoss, "/a has 10 bytes, at most 9 expected");
  EXPECT_FAILS(ReadFile(disk_, "/b", 9), absl::StatusCode::kNotFound, "/b");
}

TEST_F(DiskTest, ReplaceFileCreatesAndReplacesDurably) {
  ASSERT_OK(disk_.MakeDirectory("/d", 0700));
  ASSERT_OK(disk_.SyncDirectory("/"));
  EXPECT_OK(ReplaceFile(disk_, "/d/STORE", "one"));
  EXPECT_OK(ReplaceFile(disk_, "/d/STORE", "two!"));
  base_.CrashAndRestart(CrashPolicy::DropUnsynced());
  EXPECT_EQ(ReadBack(disk_, "/d/STORE"), "two!");
  ASSERT_OK_AND_ASSIGN(const auto names, disk_.List("/d"));
  EXPECT_EQ(names, std::vector<std::string>{"STORE"});
}

TEST_F(DiskTest, ReplaceFileSurvivesALeftoverOfItself) {
  CreateWith("/STORE.tmp", "torn");
  EXPECT_OK(ReplaceFile(disk_, "/STORE", "whole"));
  EXPECT_EQ(ReadBack(disk_, "/STORE"), "whole");
}

// Whatever fails, and whatever a crash right then drops: the old bytes or the new ones, and OK only for the new ones.
TEST_F(DiskTest, ReplaceFileWithEachCallFailingLeavesOldOrNew) {
  constexpr Call kCalls[] = {Call::kOpen,   Call::kPWrite, Call::kSync,
                             Call::kRename, Call::kRemove, Call::kSyncDirectory};
  for (const Call call : kCalls) {
    for (const Effect effect : {Effect::kFail, Effect::kFailAfter}) {
      for (uint64_t k = 1;; ++k) {
        MemoryDisk base;
        ASSERT_OK(ReplaceFile(base, "/STORE", "old"));
        FaultyDisk disk(&base);
        disk.Arm({.call = call, .nth = k, .effect = effect});
        const absl::Status status = ReplaceFile(disk, "/STORE", "new");
        if (disk.fired_count() == 0) {
          EXPECT_OK(status);
          EXPECT_GT(k, 1u) << "call " << static_cast<int>(call) << " is never made";
          break;
        }
        EXPECT_FALSE(status.ok());
        for (uint64_t seed = 0; seed < 20; ++seed) {
          const auto after = base.AfterCrash(CrashPolicy::RandomSectors(seed));
          const std::string text = ReadBack(*after, "/STORE");
          EXPECT_TRUE(text == "old" || text == "new")
              << text << ", call " << static_cast<int>(call) << " number " << k << ", seed " << seed;
        }
      }
    }
  }
}

}  // namespace
}  // namespace tensorshelf
