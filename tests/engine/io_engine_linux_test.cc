// Goal: the engine keeps its promises on a real file system, with O_DIRECT and libaio, at every size and offset.
// Method: seeded batches against a plain string on a file beside the test; skipped where direct I/O is refused.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/io_engine.h"
#include "engine/linux_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

std::span<const std::byte> AsBytes(const std::string& text) { return std::as_bytes(std::span(text)); }

std::string RandomText(uint64_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

class IoEngineLinuxTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // In the build tree: /tmp may be a tmpfs, which takes any alignment and so proves nothing.
    char directory[] = "io_engine_linux_test.XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    directory_ = directory;
    auto file = disk_->Open(path(), {.writable = true, .create = true});
    ASSERT_OK(file);
    file_ = *std::move(file);
    if (!file_->alignment().direct) GTEST_SKIP() << "no O_DIRECT here";
    ASSERT_OK(file_->Allocate(kFileSize));
    ASSERT_OK_AND_ASSIGN(
        arena_, StagingArena::Create({.size = 4 * kMiB, .buffer_size = kMiB, .page_locked = false, .hooks = {}}));
    ASSERT_OK_AND_ASSIGN(engine_, IoEngine::Create(disk_.get(), arena_.get(), IoEngineOptions()));
    ASSERT_OK_AND_ASSIGN(memory_, MappedRegion::Map(kFileSize, {}));
  }

  void TearDown() override {
    engine_.reset();
    file_.reset();
    ::unlink(path().c_str());
    ::rmdir(directory_.c_str());
  }

  std::string path() const { return directory_ + "/file"; }

  BatchResult Run(IoKind kind, std::vector<Segment> segments) {
    return engine_->Run({.kind = kind, .priority = Priority::kForeground, .segments = std::move(segments), .done = {}});
  }
  Segment At(uint64_t offset, std::byte* memory, uint64_t length, SegmentEdge edge) {
    return {.file = file_.get(), .offset = offset, .memory = memory, .length = length, .edge = edge};
  }
  std::string FileText() {
    std::string text(*file_->Size(), '\0');
    EXPECT_OK(ReadExactly(*file_, 0, std::as_writable_bytes(std::span(text))));
    return text;
  }

  static constexpr uint64_t kFileSize = 16 * kMiB;

  std::string directory_;
  std::unique_ptr<Disk> disk_ = NewLinuxDisk();
  std::unique_ptr<File> file_;
  std::unique_ptr<StagingArena> arena_;
  std::unique_ptr<IoEngine> engine_;
  MappedRegion memory_;
};

TEST_F(IoEngineLinuxTest, OddSizesOffsetsAndMemoryComeBack) {
  std::string model = FileText();
  std::mt19937_64 random(1);
  for (int round = 0; round < 60 && !HasFailure(); ++round) {
    SCOPED_TRACE(::testing::Message() << "round " << round);
    const SegmentEdge edge = random() % 2 == 0 ? SegmentEdge::kExact : SegmentEdge::kOwnsUnit;
    const uint64_t lengths[] = {1 + random() % 5000, 512 * (1 + random() % 100), 1 + random() % (3 * kMiB), 3 * kMiB};
    const uint64_t length = lengths[random() % 4];
    uint64_t offset = random() % (kFileSize - length - 4096);
    if (edge == SegmentEdge::kOwnsUnit) offset -= offset % 4096;
    if (random() % 4 == 0) offset -= offset % 512;
    std::byte* memory = memory_.data() + (random() % 2 == 0 ? 0 : random() % 5000);
    std::vector<Sum128> sums(length / 65536 + 1);

    const std::string text = RandomText(length, random());
    std::memcpy(memory, text.data(), length);
    Segment segment = At(offset, memory, length, edge);
    segment.sums = sums.data();
    ASSERT_OK(Run(IoKind::kWrite, {segment}).status);
    EXPECT_EQ(sums[0], Hash128(AsBytes(text).first(std::min<uint64_t>(length, 65536))));
    model.replace(offset, length, text);
    if (edge == SegmentEdge::kOwnsUnit) {
      const uint64_t end = offset + length;
      std::fill_n(model.begin() + end, (4096 - end % 4096) % 4096, '\0');
    }
    std::memset(memory, 0xee, length);
    ASSERT_OK(Run(IoKind::kRead, {segment}).status);
    EXPECT_TRUE(std::memcmp(memory, text.data(), length) == 0);
    EXPECT_EQ(sums[0], Hash128(AsBytes(text).first(std::min<uint64_t>(length, 65536))));
  }
  EXPECT_TRUE(FileText() == model);
}

// Parts of a few hundred bytes and of many pages side by side, all in flight at once: each page is shared by edges
// through the page cache or belongs to one direct middle, so nothing is lost between the two.
TEST_F(IoEngineLinuxTest, NeighboursThatShareSectorsAndPagesLoseNothing) {
  for (uint64_t round = 0; round < 10 && !HasFailure(); ++round) {
    std::mt19937_64 random(round);
    const std::string text = RandomText(8 * kMiB, round);
    std::memcpy(memory_.data(), text.data(), text.size());
    std::vector<std::vector<Segment>> parts(4);
    for (uint64_t at = 0; at < text.size();) {
      const uint64_t sizes[] = {512, 1 + random() % 3000, 4096 * (1 + random() % 20), 300000};
      const uint64_t length = std::min(sizes[random() % 4], text.size() - at);
      parts[random() % 4].push_back(At(at + 512 * (round % 2), memory_.data() + at, length, SegmentEdge::kExact));
      at += length;
    }
    std::vector<std::thread> threads;
    for (const std::vector<Segment>& part : parts) {
      threads.emplace_back([&] { EXPECT_OK(Run(IoKind::kWrite, part).status); });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(FileText().substr(512 * (round % 2), text.size()) == text) << "round " << round;
    // And a direct read sees what the page cache took.
    std::memset(memory_.data(), 0, text.size());
    ASSERT_OK(Run(IoKind::kRead, {At(512 * (round % 2), memory_.data(), text.size(), SegmentEdge::kExact)}).status);
    EXPECT_TRUE(std::memcmp(memory_.data(), text.data(), text.size()) == 0);
  }
}

TEST_F(IoEngineLinuxTest, SmallSegmentsAreGathered) {
  std::vector<Segment> segments;
  const std::string text = RandomText(1000 * 4096, 2);
  std::memcpy(memory_.data() + 64, text.data(), text.size());
  for (uint64_t i = 0; i < 1000; ++i) {
    segments.push_back(At(i * 4096, memory_.data() + 64 + i * 4096, 4096, SegmentEdge::kOwnsUnit));
  }
  ASSERT_OK(Run(IoKind::kWrite, segments).status);
  EXPECT_LE(engine_->stats().write_ops, 4u);
  EXPECT_TRUE(FileText().substr(0, text.size()) == text);
}

TEST_F(IoEngineLinuxTest, ExactReadPastTheEndIsDataLoss) {
  ASSERT_OK(file_->Truncate(2 * kMiB + 700));
  EXPECT_OK(Run(IoKind::kRead, {At(5, memory_.data(), 2 * kMiB + 695, SegmentEdge::kExact)}).status);
  const BatchResult result = Run(IoKind::kRead, {At(5, memory_.data(), 2 * kMiB + 696, SegmentEdge::kExact)});
  EXPECT_FAILS(result.status, absl::StatusCode::kDataLoss, path());
  EXPECT_EQ(engine_->stats().failed_ops, 1u);
}

TEST_F(IoEngineLinuxTest, UnitReadMayEndInsideTheLastUnit) {
  ASSERT_OK(file_->Truncate(2 * kMiB + 700));
  EXPECT_OK(Run(IoKind::kRead, {At(0, memory_.data() + 1, 2 * kMiB + 700, SegmentEdge::kOwnsUnit)}).status);
  EXPECT_FAILS(Run(IoKind::kRead, {At(0, memory_.data() + 1, 2 * kMiB + 701, SegmentEdge::kOwnsUnit)}).status,
               absl::StatusCode::kDataLoss, "wanted 701 bytes at 2097152, got 700");
}

TEST_F(IoEngineLinuxTest, WriteIntoAFileOpenForReadingFails) {
  ASSERT_OK_AND_ASSIGN(const auto read_only, disk_->Open(path(), {}));
  Segment segment = At(0, memory_.data(), kMiB, SegmentEdge::kOwnsUnit);
  segment.file = read_only.get();
  EXPECT_FAILS(Run(IoKind::kWrite, {segment}).status, absl::StatusCode::kInternal, "EBADF");
  segment.length = 4096;
  EXPECT_FAILS(Run(IoKind::kWrite, {segment}).status, absl::StatusCode::kInternal, "EBADF");
}

TEST_F(IoEngineLinuxTest, SyncOfSeveralFiles) {
  ASSERT_OK_AND_ASSIGN(const auto second, disk_->Open(path(), {.writable = true}));
  ASSERT_OK(Run(IoKind::kWrite, {At(0, memory_.data(), 2 * kMiB, SegmentEdge::kOwnsUnit)}).status);
  for (const absl::Status& status : engine_->Sync({file_.get(), second.get(), file_.get()})) EXPECT_OK(status);
}

}  // namespace
}  // namespace tensorshelf
