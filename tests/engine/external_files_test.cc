// Goal: plain files of others read and write exactly what was asked for, whatever their size, and a remembered file is
// never a wrong one. Method: real files in the build tree, changed behind the back of ExternalFiles; two engines that
// know nothing of each other write neighbouring bytes of the same pages at the same time.

#include "engine/external_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
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

constexpr uint64_t kKiB = 1024;

std::string RandomText(uint64_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random());
  return text;
}

class ExternalFilesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char directory[] = "external_files_test.XXXXXX";
    ASSERT_NE(::mkdtemp(directory), nullptr);
    directory_ = directory;
    ASSERT_OK_AND_ASSIGN(
        arena_, StagingArena::Create({.size = 1 << 20, .buffer_size = 64 * kKiB, .page_locked = false, .hooks = {}}));
    ASSERT_OK_AND_ASSIGN(engine_, NewEngine());
  }
  void TearDown() override {
    engine_.reset();
    ASSERT_EQ(std::system(absl::StrCat("rm -r ", directory_).c_str()), 0);
  }

  absl::StatusOr<std::unique_ptr<IoEngine>> NewEngine() {
    return IoEngine::Create(disk_.get(), arena_.get(), {.io_size = 64 * kKiB, .small_size = 16 * kKiB});
  }
  std::string PathOf(const std::string& name) const { return absl::StrCat(directory_, "/", name); }
  void Put(const std::string& name, const std::string& text) const {
    std::ofstream(PathOf(name), std::ios::binary) << text;
  }
  std::string TextOf(const std::string& name) const {
    std::ifstream file(PathOf(name), std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  static absl::Status Move(IoEngine& engine, IoKind kind, File& file, uint64_t offset, std::string& text) {
    Batch batch;
    batch.kind = kind;
    batch.segments.push_back({.file = &file,
                              .offset = offset,
                              .memory = reinterpret_cast<std::byte*>(text.data()),
                              .length = text.size(),
                              .edge = SegmentEdge::kExact});
    return engine.Run(std::move(batch)).status;
  }

  std::string directory_;
  std::unique_ptr<Disk> disk_ = NewLinuxDisk();
  std::unique_ptr<StagingArena> arena_;
  std::unique_ptr<IoEngine> engine_;
  ExternalFiles files_{{}};
};

TEST_F(ExternalFilesTest, WritesExactlyTheBytesAskedForAndNoOthers) {
  std::mt19937_64 random(7);
  std::string model = RandomText(300'000, 1);
  Put("file", model);
  for (int round = 0; round < 200; ++round) {
    const uint64_t length = random() % (round % 4 == 0 ? 200'000 : 5'000);
    const uint64_t offset = random() % 310'000 / (round % 3 == 0 ? 512 : 1) * (round % 3 == 0 ? 512 : 1);
    std::string text = RandomText(length, random());
    ASSERT_OK_AND_ASSIGN(const auto opened, files_.ForWriting(PathOf("file")));
    ASSERT_OK(Move(*engine_, IoKind::kWrite, *opened.file, offset, text));
    if (model.size() < offset + length && length > 0) model.resize(offset + length, '\0');
    model.replace(offset, length, text);
    ASSERT_EQ(TextOf("file"), model) << "round " << round << ": " << length << " bytes at " << offset;

    std::string back(std::min<uint64_t>(length, model.size() - std::min<uint64_t>(offset, model.size())), '\0');
    ASSERT_OK_AND_ASSIGN(const auto read, files_.ForReading(PathOf("file")));
    EXPECT_EQ(read.size, model.size());
    ASSERT_OK(Move(*engine_, IoKind::kRead, *read.file, offset, back));
    ASSERT_EQ(back, model.substr(std::min<uint64_t>(offset, model.size()), back.size()));
  }
}

// Each thread has an engine and an open file of its own and writes every fourth run of bytes; runs are so short and so
// placed that nearly every page is shared. A read-modify-write anywhere would lose some of them.
TEST_F(ExternalFilesTest, NeighboursInOnePageDoNotLoseEachOthersBytes) {
  constexpr int kThreads = 4;
  for (const uint64_t run : {512u, 1000u, 5000u}) {
    const uint64_t count = 256;
    const std::string want = RandomText(run * count, run);
    Put("file", "");
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        ASSERT_OK_AND_ASSIGN(const auto engine, NewEngine());
        ExternalFiles files({});
        ASSERT_OK_AND_ASSIGN(const auto opened, files.ForWriting(PathOf("file")));
        for (uint64_t i = t; i < count; i += kThreads) {
          std::string text = want.substr(i * run, run);
          ASSERT_OK(Move(*engine, IoKind::kWrite, *opened.file, i * run, text));
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(TextOf("file") == want) << "runs of " << run;
  }
}

TEST_F(ExternalFilesTest, MissingFilesAndFoldersAreNotFound) {
  EXPECT_TRUE(absl::IsNotFound(files_.ForReading(PathOf("none")).status()));
  EXPECT_TRUE(absl::IsNotFound(files_.ForWriting(PathOf("none/file")).status()));
  const auto folder = files_.ForReading(directory_);
  EXPECT_FALSE(folder.ok());
  EXPECT_FALSE(absl::IsNotFound(folder.status()));
}

TEST_F(ExternalFilesTest, CreatesPrivatelyAndNeverCuts) {
  ASSERT_OK(files_.ForWriting(PathOf("new")));
  struct stat information;
  ASSERT_EQ(::stat(PathOf("new").c_str(), &information), 0);
  EXPECT_EQ(information.st_mode & 0777, 0600u);
  EXPECT_EQ(information.st_size, 0);
  Put("old", "some text");
  ASSERT_OK(files_.ForWriting(PathOf("old")));
  EXPECT_EQ(TextOf("old"), "some text");
}

TEST_F(ExternalFilesTest, AFileThatTookThePlaceOfARememberedOneIsOpened) {
  Put("file", "first");
  ASSERT_OK_AND_ASSIGN(const auto first, files_.ForReading(PathOf("file")));
  ASSERT_OK_AND_ASSIGN(const auto again, files_.ForReading(PathOf("file")));
  EXPECT_EQ(first.file, again.file) << "remembered";
  Put("other", "second file");
  ASSERT_EQ(::rename(PathOf("other").c_str(), PathOf("file").c_str()), 0);
  ASSERT_OK_AND_ASSIGN(const auto second, files_.ForReading(PathOf("file")));
  EXPECT_NE(first.file, second.file);
  EXPECT_EQ(second.size, 11u);
  ASSERT_EQ(::chmod(PathOf("file").c_str(), 0400), 0);
  ASSERT_OK_AND_ASSIGN(const auto third, files_.ForReading(PathOf("file")));
  EXPECT_NE(second.file, third.file) << "the mode has changed: whoever may open it is asked again";
  ASSERT_EQ(::unlink(PathOf("file").c_str()), 0);
  EXPECT_TRUE(absl::IsNotFound(files_.ForReading(PathOf("file")).status()));
}

TEST_F(ExternalFilesTest, DeletedFilesAreLetGoOf) {
  std::vector<std::weak_ptr<File>> deleted;
  for (int i = 0; i < 8; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto opened, files_.ForWriting(PathOf(absl::StrCat("deleted", i))));
    deleted.push_back(opened.file);
    ASSERT_EQ(::unlink(PathOf(absl::StrCat("deleted", i)).c_str()), 0);
  }
  for (int i = 0; i < 8; ++i) ASSERT_OK(files_.ForWriting(PathOf(absl::StrCat("new", i))));
  for (const auto& file : deleted) EXPECT_TRUE(file.expired());
}

TEST_F(ExternalFilesTest, RemembersNoMoreThanItMay) {
  ExternalFiles few({.remembered_count_max = 2});
  std::vector<std::weak_ptr<File>> opened;
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK_AND_ASSIGN(const auto file, few.ForWriting(PathOf(absl::StrCat("file", i))));
    opened.push_back(file.file);
  }
  size_t open_count = 0;
  for (const auto& file : opened) open_count += file.expired() ? 0 : 1;
  EXPECT_EQ(open_count, 2u);
  few.Forget();
  EXPECT_TRUE(opened.back().expired());
}

TEST_F(ExternalFilesTest, FollowsSymbolicLinks) {
  Put("file", "text");
  ASSERT_EQ(::symlink("file", PathOf("link").c_str()), 0);
  ASSERT_OK_AND_ASSIGN(const auto opened, files_.ForReading(PathOf("link")));
  EXPECT_EQ(opened.size, 4u);
}

TEST_F(ExternalFilesTest, AnAdoptedDescriptorStaysItsOwners) {
  for (const int extra : {0, O_DIRECT}) {
    const int fd = ::open(PathOf("file").c_str(), O_WRONLY | O_CREAT | extra, 0600);
    if (fd < 0 && errno == EINVAL) GTEST_SKIP() << "no O_DIRECT here";
    ASSERT_GE(fd, 0);
    {
      ASSERT_OK_AND_ASSIGN(const auto file, files_.ForWriting(fd));
      std::string text = RandomText(100'001, extra);
      ASSERT_OK(Move(*engine_, IoKind::kWrite, *file, 3, text));
      EXPECT_EQ(TextOf("file").substr(3), text);
    }
    EXPECT_EQ(::fcntl(fd, F_GETFL) & O_ACCMODE, O_WRONLY) << "still open";
    ::close(fd);
  }
}

TEST_F(ExternalFilesTest, DescriptorsThatCannotBeWrittenAtOffsetsAreRefused) {
  EXPECT_EQ(ErrorNumberOf(files_.ForWriting(1 << 20).status()), EBADF);
  Put("file", "text");
  const int read_only = ::open(PathOf("file").c_str(), O_RDONLY);
  EXPECT_EQ(ErrorNumberOf(files_.ForWriting(read_only).status()), EBADF);
  ::close(read_only);
  const int append = ::open(PathOf("file").c_str(), O_WRONLY | O_APPEND);
  EXPECT_TRUE(absl::IsInvalidArgument(files_.ForWriting(append).status()));
  ::close(append);
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(files_.ForWriting(ends[1]).status()));
  ::close(ends[0]);
  ::close(ends[1]);
}

}  // namespace
}  // namespace tensorshelf
