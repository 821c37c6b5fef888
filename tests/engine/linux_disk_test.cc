// Goal: the real disk does what engine/disk.h says, and refuses what it must. Method: real files, O_DIRECT and libaio
// in a fresh directory under the working directory; locks and forks against real child processes.

#include "engine/linux_disk.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

std::span<const std::byte> BytesOf(const std::string& text) { return std::as_bytes(std::span(text)); }

struct AlignedFree {
  void operator()(std::byte* memory) const { std::free(memory); }
};
using AlignedBytes = std::unique_ptr<std::byte[], AlignedFree>;

AlignedBytes NewAligned(size_t size, int fill) {
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(4096, size));
  std::memset(memory, fill, size);
  return AlignedBytes(memory);
}

// Runs `child` in a forked process and gives its exit status.
int ExitStatusOf(const std::function<int()>& child) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(child());
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

class LinuxDiskTest : public ::testing::Test {
 protected:
  LinuxDiskTest() {
    std::string pattern = std::filesystem::current_path() / "linux_disk_test.XXXXXX";
    EXPECT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
  }
  ~LinuxDiskTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  }

  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  std::unique_ptr<File> Create(const std::string& name) {
    auto file = disk_->Open(Path(name), {.writable = true, .create = true});
    EXPECT_OK(file);
    return *std::move(file);
  }

  // As Create, and the test is skipped (nullptr) where the file system refuses direct I/O.
  std::unique_ptr<File> CreateDirect(const std::string& name) {
    auto file = Create(name);
    return file->alignment().direct ? std::move(file) : nullptr;
  }

  std::string directory_;
  std::vector<std::string> notices_;
  std::unique_ptr<Disk> disk_ =
      NewLinuxDisk({.on_notice = [this](const std::string& message) { notices_.push_back(message); }});
};

#define SKIP_WITHOUT_DIRECT(file) \
  if ((file) == nullptr) GTEST_SKIP() << "no O_DIRECT on the file system of " << directory_

TEST_F(LinuxDiskTest, ANewFileIsEmptyWithAUsableAlignment) {
  const auto file = Create("a");
  EXPECT_EQ(*file->Size(), 0u) << "the probe's block is cut off again";
  EXPECT_GE(file->direct_fd(), 0);
  if (file->alignment().direct) {
    EXPECT_EQ(4096 % file->alignment().offset, 0u);
    EXPECT_EQ(4096 % file->alignment().memory, 0u);
    EXPECT_TRUE(::fcntl(file->direct_fd(), F_GETFL) & O_DIRECT);
    EXPECT_TRUE(notices_.empty());
  } else {
    EXPECT_EQ(notices_.size(), 1u);
  }
  EXPECT_TRUE(::fcntl(file->direct_fd(), F_GETFD) & FD_CLOEXEC);
  struct stat information;
  ASSERT_EQ(::stat(Path("a").c_str(), &information), 0);
  EXPECT_EQ(information.st_mode & 0777, 0600u);
}

TEST_F(LinuxDiskTest, OpeningProbesWithoutTouchingTheBytes) {
  {
    const auto file = Create("a");
    ASSERT_OK(WriteExactly(*file, 0, BytesOf(std::string(5000, 'x'))));
    ASSERT_OK(file->Sync());
  }
  ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open(Path("a"), {.writable = true}));
  EXPECT_EQ(*file->Size(), 5000u);
  EXPECT_EQ(*ReadFile(*disk_, Path("a"), 5000), std::string(5000, 'x'));
}

TEST_F(LinuxDiskTest, AnyAlignmentWorksThroughPReadAndPWrite) {
  const auto file = Create("a");
  std::string expected(3 * 4096, '.');
  ASSERT_OK(WriteExactly(*file, 0, BytesOf(expected)));
  const AlignedBytes aligned = NewAligned(4096, 'd');
  ASSERT_OK(WriteExactly(*file, 4096, {aligned.get(), 4096}));
  ASSERT_OK(WriteExactly(*file, 100, BytesOf("unaligned")));
  ASSERT_OK(WriteExactly(*file, 2 * 4096 + 1, BytesOf("tail")));
  expected.replace(4096, 4096, std::string(4096, 'd'));
  expected.replace(100, 9, "unaligned");
  expected.replace(2 * 4096 + 1, 4, "tail");
  ASSERT_OK(file->Sync());

  const AlignedBytes whole = NewAligned(3 * 4096, 0);
  ASSERT_OK(ReadExactly(*file, 0, {whole.get(), 3 * 4096}));
  EXPECT_EQ(std::memcmp(whole.get(), expected.data(), expected.size()), 0);
  std::string piece(4099, '?');
  ASSERT_OK(ReadExactly(*file, 99, std::as_writable_bytes(std::span(piece))));
  EXPECT_EQ(piece, expected.substr(99, 4099));
  EXPECT_EQ(file->PRead(3 * 4096, {whole.get(), 4096}), 0) << "end of file";
}

TEST_F(LinuxDiskTest, UnalignedTransfersWorkAfterARename) {
  const auto file = Create("a");
  ASSERT_OK(disk_->Rename(Path("a"), Path("b")));
  ASSERT_OK(Create("a")->Truncate(10));
  ASSERT_OK(WriteExactly(*file, 1, BytesOf("x")));
  EXPECT_EQ(*file->Size(), 2u);
  EXPECT_EQ(*ReadFile(*disk_, Path("a"), 10), std::string(10, '\0'));
}

TEST_F(LinuxDiskTest, AReadOnlyFileRefusesWrites) {
  Create("a");
  ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open(Path("a"), {}));
  const AlignedBytes aligned = NewAligned(4096, 'd');
  EXPECT_EQ(file->PWrite(0, {aligned.get(), 4096}), -EBADF);
  EXPECT_EQ(file->PWrite(1, BytesOf("x")), -EBADF);
  EXPECT_FAILS(file->Truncate(0), absl::StatusCode::kInternal, "EINVAL");
  EXPECT_FAILS(file->Allocate(4096), absl::StatusCode::kInternal, "EBADF");
}

TEST_F(LinuxDiskTest, AllocateReservesAndNeverShrinks) {
  const auto file = Create("a");
  ASSERT_OK(file->Allocate(1 << 20));
  EXPECT_EQ(*file->Size(), uint64_t{1} << 20);
  struct stat information;
  ASSERT_EQ(::stat(Path("a").c_str(), &information), 0);
  EXPECT_GE(information.st_blocks * 512, 1 << 20);
  ASSERT_OK(file->Allocate(4096));
  ASSERT_OK(file->Allocate(0));
  EXPECT_EQ(*file->Size(), uint64_t{1} << 20);
  EXPECT_FAILS(file->Allocate(uint64_t{1} << 62), absl::StatusCode::kInternal, "EFBIG");
  ASSERT_OK(file->Truncate(5));
  EXPECT_EQ(*file->Size(), 5u);
}

TEST_F(LinuxDiskTest, OnlyRegularFilesAreOpened) {
  ASSERT_EQ(::mkfifo(Path("fifo").c_str(), 0600), 0);
  ASSERT_EQ(::symlink("target", Path("link").c_str()), 0);
  Create("target");
  const int unix_socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(directory_);  // a socket's path must be short
  ASSERT_EQ(::bind(unix_socket, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  std::filesystem::current_path(before);
  ::close(unix_socket);

  for (const bool writable : {false, true}) {
    for (const bool direct : {false, true}) {
      const OpenOptions options{.writable = writable, .direct = direct};
      // Must not block either: nobody has the other end of the FIFO.
      EXPECT_FAILS(disk_->Open(Path("fifo"), options), absl::StatusCode::kInvalidArgument, "not a regular file");
      EXPECT_FAILS(disk_->Open(Path("link"), options), absl::StatusCode::kInvalidArgument, "symbolic link");
      EXPECT_FAILS(disk_->Open(Path("socket"), options), absl::StatusCode::kInvalidArgument, "not a regular file");
      EXPECT_FAILS(disk_->Open(directory_, options), absl::StatusCode::kInvalidArgument, "not a regular file");
      EXPECT_FAILS(disk_->Open(Path("none"), options), absl::StatusCode::kNotFound, Path("none"));
    }
  }
  EXPECT_FAILS(disk_->Open(Path("target"), {.writable = true, .create = true}), absl::StatusCode::kAlreadyExists,
               "EEXIST");
  EXPECT_FAILS(disk_->Lock(Path("fifo"), "me"), absl::StatusCode::kInvalidArgument, "not a regular file");
  EXPECT_FAILS(disk_->Lock(Path("link"), "me"), absl::StatusCode::kInvalidArgument, "symbolic link");
  EXPECT_EQ(disk_->Stat(Path("fifo"))->kind, PathInfo::Kind::kOther);
  EXPECT_EQ(disk_->Stat(Path("link"))->kind, PathInfo::Kind::kOther);
}

TEST_F(LinuxDiskTest, WithoutDirectIoItWorksBufferedAndSaysSoOnce) {
  // procfs refuses O_DIRECT; its files are regular.
  ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open("/proc/self/status", {}));
  EXPECT_FALSE(file->alignment().direct);
  EXPECT_OK(disk_->Open("/proc/self/limits", {}));
  ASSERT_EQ(notices_.size(), 1u);
  EXPECT_NE(notices_[0].find("/proc/self/status"), std::string::npos) << notices_[0];
  std::string text(5, '?');
  ASSERT_OK(ReadExactly(*file, 0, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, "Name:");
}

TEST_F(LinuxDiskTest, DirectoriesAndNames) {
  ASSERT_OK(disk_->MakeDirectory(Path("d"), 0700));
  EXPECT_FAILS(disk_->MakeDirectory(Path("d"), 0700), absl::StatusCode::kAlreadyExists, Path("d"));
  EXPECT_FAILS(disk_->MakeDirectory(Path("x/y"), 0700), absl::StatusCode::kNotFound, Path("x/y"));
  ASSERT_OK(ReplaceFile(*disk_, Path("d/b"), "1"));
  ASSERT_OK(ReplaceFile(*disk_, Path("d/a"), "22"));
  EXPECT_EQ(*disk_->List(Path("d")), (std::vector<std::string>{"a", "b"}));
  EXPECT_FAILS(disk_->List(Path("x")), absl::StatusCode::kNotFound, Path("x"));
  EXPECT_EQ(disk_->Stat(Path("d"))->kind, PathInfo::Kind::kDirectory);
  EXPECT_EQ(disk_->Stat(Path("d/a"))->kind, PathInfo::Kind::kFile);
  EXPECT_EQ(disk_->Stat(Path("d/a"))->size, 2u);
  EXPECT_EQ(disk_->Stat(Path("d/a/z"))->kind, PathInfo::Kind::kAbsent);
  EXPECT_EQ(disk_->Stat(Path("none"))->kind, PathInfo::Kind::kAbsent);
  EXPECT_FAILS(disk_->Remove(Path("d")), absl::StatusCode::kInternal, "ENOTEMPTY");
  EXPECT_FAILS(disk_->Remove(Path("none")), absl::StatusCode::kNotFound, Path("none"));
  EXPECT_FAILS(disk_->Rename(Path("none"), Path("n2")), absl::StatusCode::kNotFound, Path("none"));
  EXPECT_FAILS(disk_->SyncDirectory(Path("none")), absl::StatusCode::kNotFound, Path("none"));
  EXPECT_FAILS(disk_->SyncDirectory(Path("d/a")), absl::StatusCode::kInternal, "ENOTDIR");
  ASSERT_OK(disk_->SyncDirectory(Path("d")));
  ASSERT_OK(disk_->Remove(Path("d/a")));
  ASSERT_OK(disk_->Remove(Path("d/b")));
  ASSERT_OK(disk_->Remove(Path("d")));
  ASSERT_OK_AND_ASSIGN(const FileSystemSpace space, disk_->Space(directory_));
  EXPECT_GT(space.total_bytes, space.available_bytes);
  EXPECT_FAILS(disk_->Space(Path("none")), absl::StatusCode::kNotFound, Path("none"));
}

TEST_F(LinuxDiskTest, TheQueueMovesBytesDirectly) {
  const auto file = CreateDirect("a");
  SKIP_WITHOUT_DIRECT(file);
  constexpr size_t kSize = 64 << 10;
  constexpr size_t kCount = 8;
  ASSERT_OK(file->Allocate(kSize * kCount));
  ASSERT_OK_AND_ASSIGN(const auto queue, disk_->NewQueue(kCount / 2));
  const AlignedBytes written = NewAligned(kSize * kCount, 0);
  for (size_t i = 0; i < kSize * kCount; ++i) written[i] = static_cast<std::byte>(i * 7 + i / kSize);
  const AlignedBytes read = NewAligned(kSize * kCount, 0);

  for (const IoKind kind : {IoKind::kWrite, IoKind::kRead}) {
    std::byte* memory = kind == IoKind::kWrite ? written.get() : read.get();
    std::vector<IoOp> ops(kCount);
    std::vector<IoOp*> pointers;
    for (size_t i = 0; i < kCount; ++i) {
      ops[i] = {.kind = kind, .file = file.get(), .offset = i * kSize, .memory = memory + i * kSize, .length = kSize};
      pointers.push_back(&ops[i]);
    }
    std::span<IoOp* const> rest(pointers);
    std::vector<IoCompletion> completions(kCount);
    size_t done = 0;
    while (done < kCount) {
      if (!rest.empty() && queue->in_flight() < queue->depth()) {
        const int taken = queue->Submit(rest);
        ASSERT_GT(taken, 0);
        rest = rest.subspan(static_cast<size_t>(taken));
      }
      const int count = queue->Reap(1, completions, -1);
      ASSERT_GT(count, 0);
      for (int i = 0; i < count; ++i) EXPECT_EQ(completions[i].result, static_cast<int64_t>(kSize));
      done += static_cast<size_t>(count);
    }
    EXPECT_EQ(queue->in_flight(), 0u);
  }
  ASSERT_OK(file->Sync());
  EXPECT_EQ(std::memcmp(written.get(), read.get(), kSize * kCount), 0);
}

TEST_F(LinuxDiskTest, TheQueueTellsTheKernelsErrors) {
  const auto file = CreateDirect("a");
  SKIP_WITHOUT_DIRECT(file);
  const AlignedBytes memory = NewAligned(8192, 0);
  // Written and not only allocated: the kernel reads zeros out of a hole at any alignment.
  ASSERT_OK(WriteExactly(*file, 0, {memory.get(), 8192}));
  ASSERT_OK_AND_ASSIGN(const auto queue, disk_->NewQueue(4));
  std::vector<IoCompletion> completions(4);
  EXPECT_EQ(queue->Reap(1, completions, -1), 0) << "nothing in flight: nothing to wait for";

  IoOp misaligned{.kind = IoKind::kRead, .file = file.get(), .offset = 1, .memory = memory.get(), .length = 4096};
  IoOp* op = &misaligned;
  ASSERT_EQ(queue->Submit({&op, 1}), 1);
  ASSERT_EQ(queue->Reap(1, completions, -1), 1);
  EXPECT_EQ(completions[0].op, &misaligned);
  EXPECT_EQ(completions[0].result, -EINVAL);

  IoOp past_end{.kind = IoKind::kRead, .file = file.get(), .offset = 4096, .memory = memory.get(), .length = 8192};
  op = &past_end;
  ASSERT_EQ(queue->Submit({&op, 1}), 1);
  ASSERT_EQ(queue->Reap(1, completions, -1), 1);
  EXPECT_EQ(completions[0].result, 4096) << "short at the end of the file";

  ASSERT_OK_AND_ASSIGN(const auto read_only, disk_->Open(Path("a"), {}));
  IoOp forbidden{.kind = IoKind::kWrite, .file = read_only.get(), .offset = 0, .memory = memory.get(), .length = 4096};
  std::array<IoOp*, 2> ops = {&forbidden, &past_end};
  EXPECT_EQ(queue->Submit(ops), -EBADF) << "speaks of the first one alone";
  std::swap(ops[0], ops[1]);
  EXPECT_EQ(queue->Submit(ops), 1) << "the good one before it is taken";
  EXPECT_EQ(queue->in_flight(), 1u);
  EXPECT_EQ(queue->Reap(1, completions, 1000000), 1);
}

TEST_F(LinuxDiskTest, TheQueueWorksOnBufferedFiles) {
  ASSERT_OK_AND_ASSIGN(const auto file, disk_->Open(Path("a"), {.writable = true, .create = true, .direct = false}));
  ASSERT_OK_AND_ASSIGN(const auto queue, disk_->NewQueue(1));
  std::string text = "any alignment";
  IoOp write{.kind = IoKind::kWrite,
             .file = file.get(),
             .offset = 3,
             .memory = reinterpret_cast<std::byte*>(text.data()),
             .length = static_cast<uint32_t>(text.size())};
  IoOp* op = &write;
  ASSERT_EQ(queue->Submit({&op, 1}), 1);
  EXPECT_EQ(queue->Submit({&op, 1}), -EAGAIN) << "full";
  std::vector<IoCompletion> completions(1);
  ASSERT_EQ(queue->Reap(1, completions, -1), 1);
  EXPECT_EQ(completions[0].result, static_cast<int64_t>(text.size()));
  EXPECT_EQ(*ReadFile(*disk_, Path("a"), 100), std::string(3, '\0') + text);
}

TEST_F(LinuxDiskTest, DestroyingAQueueWaitsForWhatIsInFlight) {
  const auto file = CreateDirect("a");
  SKIP_WITHOUT_DIRECT(file);
  constexpr uint32_t kSize = 4 << 20;
  const AlignedBytes memory = NewAligned(kSize, 'q');
  ASSERT_OK(file->Allocate(kSize));
  IoOp write{.kind = IoKind::kWrite, .file = file.get(), .offset = 0, .memory = memory.get(), .length = kSize};
  IoOp* op = &write;
  ASSERT_OK_AND_ASSIGN(auto queue, disk_->NewQueue(1));
  ASSERT_EQ(queue->Submit({&op, 1}), 1);
  queue.reset();
  const AlignedBytes read = NewAligned(kSize, 0);
  ASSERT_OK(ReadExactly(*file, 0, {read.get(), kSize}));
  EXPECT_EQ(std::memcmp(read.get(), memory.get(), kSize), 0);
}

TEST_F(LinuxDiskTest, AForkedChildLeavesTheQueueOfItsParentAlone) {
  const auto file = CreateDirect("a");
  SKIP_WITHOUT_DIRECT(file);
  ASSERT_OK(file->Allocate(4096));
  const AlignedBytes memory = NewAligned(4096, 'q');
  IoOp read{.kind = IoKind::kRead, .file = file.get(), .offset = 0, .memory = memory.get(), .length = 4096};
  IoOp* op = &read;
  ASSERT_OK_AND_ASSIGN(auto queue, disk_->NewQueue(1));
  ASSERT_EQ(queue->Submit({&op, 1}), 1);
  EXPECT_EQ(ExitStatusOf([&] {
              queue.reset();  // neither waits for events that never come here nor crashes
              return 0;
            }),
            0);
  std::vector<IoCompletion> completions(1);
  ASSERT_EQ(queue->Reap(1, completions, -1), 1);
  EXPECT_EQ(completions[0].result, 4096);
}

TEST_F(LinuxDiskTest, QueuesOfImpossibleDepthAreRefused) {
  EXPECT_FAILS(disk_->NewQueue(0), absl::StatusCode::kInvalidArgument, "depth");
  EXPECT_FAILS(disk_->NewQueue(size_t{1} << 40), absl::StatusCode::kResourceExhausted, "fs.aio-max-nr");
}

TEST_F(LinuxDiskTest, ALockKeepsOtherProcessesOutAndNamesItsHolder) {
  EXPECT_FAILS(disk_->LockHolder(Path("LOCK")), absl::StatusCode::kNotFound, "");
  ASSERT_OK_AND_ASSIGN(auto lock, disk_->Lock(Path("LOCK"), "pid 1 on here"));
  const auto try_in_child = [&] {
    return ExitStatusOf([&] {
      const auto disk = NewLinuxDisk();
      const absl::StatusOr<std::string> holder = disk->LockHolder(Path("LOCK"));
      const absl::Status status = disk->Lock(Path("LOCK"), "the child").status();
      if (status.ok()) return 0;
      const bool named = status.message().find("locked by pid 1 on here") != absl::string_view::npos;
      return absl::IsFailedPrecondition(status) && named && holder.ok() && *holder == "pid 1 on here" ? 1 : 2;
    });
  };
  EXPECT_EQ(try_in_child(), 1);
  EXPECT_EQ(try_in_child(), 1) << "the first child's descriptors took nothing with them";
  lock.reset();
  EXPECT_EQ(try_in_child(), 0);
  EXPECT_FAILS(disk_->LockHolder(Path("LOCK")), absl::StatusCode::kNotFound, "") << "released with its process";
  EXPECT_OK(disk_->Lock(Path("LOCK"), "again"));
}

TEST_F(LinuxDiskTest, ALockKeepsItsOwnProcessOutToo) {
  ASSERT_OK_AND_ASSIGN(auto lock, disk_->Lock(Path("LOCK"), "the first"));
  const auto other_disk = NewLinuxDisk();
  EXPECT_FAILS(other_disk->Lock(Path("./LOCK"), "the second"), absl::StatusCode::kFailedPrecondition, "the first");
  EXPECT_EQ(*other_disk->LockHolder(Path("LOCK")), "the first");
  // Neither question opened and closed the file, which would have dropped the lock.
  EXPECT_EQ(ExitStatusOf([&] { return disk_->Lock(Path("LOCK"), "a child").ok() ? 0 : 1; }), 1);
  lock.reset();
  EXPECT_OK(other_disk->Lock(Path("LOCK"), "the second"));
}

TEST_F(LinuxDiskTest, AForkedChildReleasesNothing) {
  ASSERT_OK_AND_ASSIGN(auto lock, disk_->Lock(Path("LOCK"), "parent"));
  EXPECT_EQ(ExitStatusOf([&] {
              lock.reset();
              return 0;
            }),
            0);
  EXPECT_EQ(ExitStatusOf([&] { return disk_->Lock(Path("LOCK"), "child").ok() ? 0 : 1; }), 1);
}

TEST_F(LinuxDiskTest, AShorterHolderLeavesNothingOfALongerOne) {
  { ASSERT_OK_AND_ASSIGN(const auto lock, disk_->Lock(Path("LOCK"), "a rather long holder")); }
  ASSERT_OK_AND_ASSIGN(const auto lock, disk_->Lock(Path("LOCK"), "short"));
  EXPECT_EQ(ExitStatusOf([&] { return *disk_->LockHolder(Path("LOCK")) == "short" ? 0 : 1; }), 0);
  EXPECT_FAILS(disk_->Lock(Path("L2"), std::string(5000, 'x')), absl::StatusCode::kInvalidArgument, "too long");
  EXPECT_FAILS(disk_->Lock(Path("none/LOCK"), "me"), absl::StatusCode::kNotFound, "none/LOCK");
}

}  // namespace
}  // namespace tensorshelf
