// Goal: other processes see a live writer's counters, never those of a dead one, and nothing that stands in the place
// of the file harms the writer or whoever reads.
// Method: a store in a temporary directory, its file replaced by everything it should not be; a faulty disk for the
// writes that fail.

#include "store/live_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/linux_disk.h"
#include "store/process_identity.h"
#include "store/shelf_files.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/faulty_disk.h"
#include "tests/testing/memory_disk.h"

namespace tensorshelf {
namespace {

namespace fs = std::filesystem;
using testing::Call;
using testing::Effect;
using testing::FaultyDisk;
using testing::MemoryDisk;

std::string ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
void WriteText(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

class LiveFileTest : public StoreFixture {
 protected:
  LiveFileTest() {
    options_.page_locked = false;
    options_.staging_bytes = 4 << 20;
    options_.background_fill = false;
  }
  fs::path counters() const { return fs::path(path_) / kCountersName; }
  absl::StatusOr<LiveReading> Read() { return ReadLive(*disk_, path_); }

  std::unique_ptr<Disk> disk_ = NewLinuxDisk();
};

TEST_F(LiveFileTest, IsThereWhileTheStoreIsOpenForWriting) {
  Create();
  EXPECT_FALSE(fs::exists(counters()));
  Open();
  struct stat status {};
  ASSERT_EQ(::lstat(counters().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  EXPECT_EQ(static_cast<size_t>(status.st_size), kLivePageBytes);
  EXPECT_OK(store_->counters_status());
  ASSERT_OK_AND_ASSIGN(const LiveReading reading, Read());
  EXPECT_EQ(reading.page.header.pid, static_cast<uint32_t>(::getpid()));
  EXPECT_EQ(reading.page.header.process_start_ticks, StartOfThisProcess().ticks);
  EXPECT_EQ(reading.page.header.epoch, store_->info().epoch);
  EXPECT_EQ(reading.page.header.store_uuid, store_->info().store_uuid);
  EXPECT_EQ(reading.writer, store_->info().writer);
  EXPECT_EQ(reading.page.used_devices().size(), 1u);
  ASSERT_OK(store_->Close());
  EXPECT_FALSE(fs::exists(counters()));
  EXPECT_FAILS(Read(), absl::StatusCode::kFailedPrecondition, "nobody writes to");
}

TEST_F(LiveFileTest, ShowsWhatWasDoneBeforeLong) {
  Create();
  Open();
  const std::string bytes = RandomBytes(100'000, 1);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  uint64_t seen = 0;
  while (seen == 0 && absl::Now() < deadline) {
    ASSERT_OK_AND_ASSIGN(const LiveReading reading, Read());
    seen = reading.page.operation(Operation::kPut).bytes;
  }
  EXPECT_EQ(seen, 100'000u);
}

TEST_F(LiveFileTest, AReaderMakesNone) {
  Create();
  options_.mode = StoreOptions::Mode::kReadOnly;
  Open();
  EXPECT_FALSE(fs::exists(counters()));
  EXPECT_FAILS(store_->counters_status(), absl::StatusCode::kFailedPrecondition, "opened for reading");
  EXPECT_EQ(store_->live_page().gauges.names, UINT64_MAX);
}

TEST_F(LiveFileTest, ThereIsNoStore) { EXPECT_FAILS(Read(), absl::StatusCode::kNotFound, "no store at"); }

// What a kill leaves: the page of a process that is gone, or whose pid somebody else has now.
TEST_F(LiveFileTest, WhatADeadWriterLeftIsToldFromALiveOne) {
  Create();
  Open();
  const std::string left = ReadText(counters());
  ASSERT_OK(store_->Close());
  WriteText(counters(), left);
  EXPECT_FAILS(Read(), absl::StatusCode::kFailedPrecondition, "its last writer was pid=");
  // A live writer that shows nothing, beside the page of a dead one: same pid, another opening.
  ASSERT_OK_AND_ASSIGN(const auto lock, disk_->Lock(path_ + "/LOCK", HolderText() + " again"));
  EXPECT_FAILS(Read(), absl::StatusCode::kFailedPrecondition, "was left by pid=");
}

TEST_F(LiveFileTest, TheNextWriterReplacesWhatIsThere) {
  Create();
  const fs::path outside = fs::path(root_) / "outside";
  WriteText(outside, "not ours");
  const std::vector<std::function<void()>> stand_ins = {
      [&] { WriteText(counters(), "garbage"); }, [&] { ASSERT_EQ(::mkfifo(counters().c_str(), 0600), 0); },
      [&] { fs::create_symlink(outside, counters()); }, [&] { fs::create_directory(counters()); }};
  for (const auto& put_there : stand_ins) {
    put_there();
    Open();
    EXPECT_OK(store_->counters_status());
    EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(counters())));
    EXPECT_OK(Read());
    ASSERT_OK(store_->Close());
    EXPECT_EQ(fs::symlink_status(counters()).type(), fs::file_type::not_found);
  }
  EXPECT_EQ(ReadText(outside), "not ours");
}

TEST_F(LiveFileTest, AStoreOpensWhereTheFileCannotBeMade) {
  Create();
  fs::create_directories(counters() / "in the way");
  Open();
  ASSERT_NE(store_, nullptr);
  EXPECT_FALSE(store_->counters_status().ok());
  const std::string bytes = RandomBytes(5000, 1);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  EXPECT_EQ(store_->live_page().operation(Operation::kPut).items, 1u) << "this process sees them all the same";
  EXPECT_FAILS(Read(), absl::StatusCode::kFailedPrecondition, "shows no counters");
  ASSERT_OK(store_->Close());
  EXPECT_TRUE(fs::exists(counters() / "in the way"));
}

TEST_F(LiveFileTest, ReadersBelieveNothingElse) {
  Create();
  Open();
  const std::string good = ReadText(counters());
  LivePage page = *DecodeLivePage(std::as_bytes(std::span(good)));
  const auto expect_refused = [&](const std::string& what) {
    const auto reading = Read();
    EXPECT_FAILS(reading, absl::StatusCode::kFailedPrecondition, what);
  };
  // Beside it, so that the writer's own file descriptor does not write into it.
  const auto replace = [&](const std::string& bytes) {
    fs::remove(counters());
    WriteText(counters(), bytes);
  };
  fs::remove(counters());
  expect_refused("shows no counters");
  replace(good.substr(0, 5000));
  expect_refused("5000 bytes");
  replace("");
  expect_refused("0 bytes");
  replace(RandomBytes(kLivePageBytes, 3));
  expect_refused("does not begin");
  replace(std::string(1'000'000, 'x'));
  expect_refused("1000000 bytes");
  page.header.version = 9;
  replace(EncodeLivePage(page));
  expect_refused("its version is 9");
  page.header.version = kLivePageVersion;
  page.header.store_uuid[0] ^= 1;
  replace(EncodeLivePage(page));
  expect_refused("of another store");
  page.header.store_uuid[0] ^= 1;
  SetText(page.header.holder, "pid=1 host=elsewhere");
  replace(EncodeLivePage(page));
  expect_refused("was left by pid=1 host=elsewhere");
  fs::remove(counters());
  ASSERT_EQ(::mkfifo(counters().c_str(), 0600), 0);
  expect_refused("not a regular file");
  fs::remove(counters());
  const fs::path outside = fs::path(root_) / "outside";
  WriteText(outside, good);
  fs::create_symlink(outside, counters());
  expect_refused("shows no counters");
  fs::remove(counters());
  fs::create_directory(counters());
  expect_refused("shows no counters");
  fs::remove(counters());
  ASSERT_OK(store_->Close());
}

TEST_F(LiveFileTest, TruncatedUnderTheWriterHarmsNobody) {
  Create();
  Open();
  fs::resize_file(counters(), 0);
  const std::string bytes = RandomBytes(5000, 1);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  EXPECT_EQ(Get("a"), bytes);
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  absl::StatusOr<LiveReading> reading = Read();
  while (!reading.ok() && absl::Now() < deadline) reading = Read();
  EXPECT_OK(reading) << "the next change writes the whole page anew";
}

// A page that is read in the middle of a writing is read again, not believed and not reported.
TEST_F(LiveFileTest, TornPagesAreReadAgain) {
  Create();
  Open();
  ASSERT_OK_AND_ASSIGN(LiveReading reading, Read());
  LivePage page = reading.page;
  const fs::path fast = counters();
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) {
      ++page.header.sequence;
      page.operations[0].items = page.operations[15].items = page.devices[15].live = page.header.sequence;
      const std::string bytes = EncodeLivePage(page);
      std::fstream file(fast, std::ios::in | std::ios::out | std::ios::binary);
      for (size_t at = 0; at < bytes.size(); at += 4096) {
        file.write(bytes.data() + at, 4096);
        file.flush();
      }
    }
  });
  int good = 0;
  for (int i = 0; i < 300; ++i) {
    const auto read = Read();
    if (!read.ok()) continue;  // torn fifty times in a row, by a writer that does nothing else
    ++good;
    EXPECT_EQ(read->page.operations[0].items, read->page.operations[15].items);
    EXPECT_EQ(read->page.operations[0].items, read->page.devices[15].live);
  }
  stop = true;
  writer.join();
  EXPECT_GT(good, 0);
  ASSERT_OK(store_->Close());
}

LivePage Sample(uint64_t commit) {
  LivePage page;
  InitialiseLivePage(page);
  page.gauges.commit = commit;
  return page;
}

TEST(LiveFileOnADisk, AFirstWriteThatFailsLeavesNothing) {
  MemoryDisk base;
  ASSERT_OK(base.MakeDirectory("/s", 0700));
  FaultyDisk disk(&base);
  disk.Arm({.call = Call::kPWrite, .nth = 1, .error_number = ENOSPC});
  LiveFile file({.disk = &disk, .path = "/s/counters", .sample = [] { return Sample(1); }});
  EXPECT_FAILS(file.status(), absl::StatusCode::kResourceExhausted, "/s/counters");
  EXPECT_EQ(base.Stat("/s/counters")->kind, PathInfo::Kind::kAbsent);
}

TEST(LiveFileOnADisk, ALaterWriteThatFailsEndsIt) {
  MemoryDisk base;
  ASSERT_OK(base.MakeDirectory("/s", 0700));
  FaultyDisk disk(&base);
  disk.Arm({.call = Call::kPWrite, .nth = 2, .error_number = ENOSPC});
  std::atomic<uint64_t> commit{0};
  LiveFile file({.disk = &disk,
                 .path = "/s/counters",
                 .sample = [&] { return Sample(++commit); },
                 .every = absl::Milliseconds(1)});
  const absl::Time deadline = absl::Now() + absl::Seconds(30);
  while (file.status().ok() && absl::Now() < deadline) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_FAILS(file.status(), absl::StatusCode::kResourceExhausted, "/s/counters");
  EXPECT_EQ(base.Stat("/s/counters")->kind, PathInfo::Kind::kAbsent);
  EXPECT_EQ(commit.load(), 2u) << "it does not go on looking";
}

TEST(LiveFileOnADisk, NothingIsWrittenWhileNothingChanges) {
  MemoryDisk base;
  ASSERT_OK(base.MakeDirectory("/s", 0700));
  FaultyDisk disk(&base);
  absl::Notification looked_often;
  std::atomic<int> looks{0};
  {
    LiveFile file({.disk = &disk,
                   .path = "/s/counters",
                   .sample =
                       [&] {
                         if (++looks == 10) looked_often.Notify();
                         return Sample(1);
                       },
                   .every = absl::Milliseconds(1)});
    looked_often.WaitForNotification();
  }
  EXPECT_EQ(disk.count(Call::kPWrite), 1u);
  EXPECT_EQ(base.Stat("/s/counters")->kind, PathInfo::Kind::kAbsent);
}

}  // namespace
}  // namespace tensorshelf
