// Goal: a file system that is really full, or gone, costs an error with a type and nothing else: what was acknowledged
// is read meanwhile, and is there when there is room again. Method: ext4 and XFS on loop devices of 400 MiB, which only
// root can make; skipped elsewhere, with the reason.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "store/compact.h"
#include "store/grow_store.h"
#include "tests/store/store_fixture.h"
#include "tests/store/store_model.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

namespace fs = std::filesystem;
using testing::IsOk;

constexpr uint64_t kImageBytes = uint64_t{400} << 20;
constexpr unsigned long kShutDown = _IOR('X', 125, uint32_t);  // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN

int Shell(const std::string& command) { return std::system(absl::StrCat(command, " >/dev/null 2>&1").c_str()); }

class FullDiskTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "only root can make a loop device";
    std::error_code none;
    const bool in_memory = ::access("/dev/shm", W_OK) == 0 && fs::space("/dev/shm", none).available > kImageBytes * 2;
    std::string pattern = (in_memory ? "/dev/shm" : fs::current_path().string()) + "/tensorshelf_full.XXXXXX";
    root_ = mkdtemp(pattern.data());
    mount_ = root_ + "/mount";
    const std::string image = root_ + "/image";
    fs::create_directory(mount_);
    std::ofstream(image).close();
    fs::resize_file(image, kImageBytes);
    if (Shell(absl::StrCat("mkfs.", GetParam(), " -q ", image)) != 0) GTEST_SKIP() << "no mkfs." << GetParam();
    image_ = image;
    if (!Mount("")) GTEST_SKIP() << "loop devices cannot be mounted here";
  }
  void TearDown() override {
    store_.reset();
    if (mounted_) Shell("umount " + mount_);
    if (!root_.empty()) fs::remove_all(root_);
  }
  bool Mount(const std::string& options) {
    mounted_ = Shell(absl::StrCat("mount -o loop", options.empty() ? "" : ",", options, " ", image_, " ", mount_)) == 0;
    return mounted_;
  }
  void Unmount() {
    ASSERT_EQ(Shell("umount " + mount_), 0);
    mounted_ = false;
  }

  std::string shelf() const { return mount_ + "/shelf"; }
  static StoreOptions Options() {
    StoreOptions options;
    options.staging_bytes = 2 << 20;
    options.page_locked = false;
    options.background_fill = false;
    options.idle_witness_ms = 100000;
    options.index.memtable_bytes = 256 << 10;
    return options;
  }
  void CreateAndFill(uint64_t capacity) {
    CreateOptions options;
    options.capacity = capacity;
    options.prefill = Prefill::kNone;
    ASSERT_OK(Store::Create(shelf(), options));
    Open();
    for (uint64_t i = 0; i < 8; ++i) {
      ASSERT_NO_FATAL_FAILURE(Do({.kind = ModelOp::Kind::kPut,
                                  .name = absl::StrCat("o/", i),
                                  .value = {.size = 1000 + 50000 * i, .seed = i}}));
    }
  }
  void Open() { ASSERT_OK_AND_ASSIGN(store_, Store::Open(shelf(), Options())); }
  void Do(const ModelOp& op) {
    ASSERT_OK(Apply(*store_, op)) << Describe(op);
    ASSERT_EQ(Apply(model_, op), absl::StatusCode::kOk);
  }
  // Takes all of the file system but `left` bytes.
  void FillFileSystem(uint64_t left) {
    struct statvfs status {};
    ASSERT_EQ(::statvfs(mount_.c_str(), &status), 0);
    const uint64_t free = uint64_t{status.f_bavail} * status.f_frsize;
    ASSERT_GT(free, left);
    const int fd = ::open((mount_ + "/filler").c_str(), O_CREAT | O_WRONLY, 0600);
    ASSERT_GE(fd, 0);
    uint64_t taken = free - left;
    while (taken > 0 && ::posix_fallocate(fd, 0, static_cast<off_t>(taken)) != 0) taken = taken * 15 / 16;
    ::close(fd);
    ASSERT_GT(taken, 0u);
  }
  // XFS gives space back behind the removal; what it had before is there again when this returns.
  void EmptyFileSystem() {
    const uint64_t taken = fs::file_size(mount_ + "/filler");
    const uint64_t before = fs::space(mount_).available;
    fs::remove(mount_ + "/filler");
    const int fd = ::open(mount_.c_str(), O_RDONLY | O_DIRECTORY);
    ASSERT_GE(fd, 0);
    const absl::Time deadline = absl::Now() + absl::Seconds(20);
    while (fs::space(mount_).available < before + taken / 2 && absl::Now() < deadline) {
      ASSERT_EQ(::syncfs(fd), 0);
      std::this_thread::yield();
    }
    ::close(fd);
  }
  // Whatever is refused is refused with a type, and changes nothing.
  static bool IsTyped(const absl::Status& status) {
    return absl::IsResourceExhausted(status) || absl::IsFailedPrecondition(status) || absl::IsInternal(status);
  }

  std::string root_, mount_, image_;
  bool mounted_ = false;
  std::unique_ptr<Store> store_;
  Model model_;
};

TEST_P(FullDiskTest, ACreationThatDoesNotFitLeavesNothing) {
  CreateOptions options;
  options.capacity = uint64_t{1} << 30;
  EXPECT_EQ(KindOf(Store::Create(shelf(), options)), ErrorKind::kFull);
  EXPECT_FALSE(fs::exists(shelf()));
  options.capacity = uint64_t{64} << 20;
  ASSERT_NO_FATAL_FAILURE(FillFileSystem(uint64_t{70} << 20));
  const absl::Status tight = Store::Create(shelf(), options);
  EXPECT_TRUE(tight.ok() || absl::IsResourceExhausted(tight)) << tight;
  EmptyFileSystem();
  if (!tight.ok()) {
    EXPECT_OK(Store::Create(shelf(), options));
  }
}

TEST_P(FullDiskTest, WithoutRoomForTheIndexReadsAndDeletesGoOn) {
  ASSERT_NO_FATAL_FAILURE(CreateAndFill(uint64_t{64} << 20));
  ASSERT_NO_FATAL_FAILURE(FillFileSystem(uint64_t{2} << 20));
  absl::Status refused;
  uint64_t puts = 0;
  for (; refused.ok() && puts < 20000; ++puts) {
    const ModelOp op{
        .kind = ModelOp::Kind::kPut, .name = absl::StrCat("n/", puts), .value = {.size = 900, .seed = puts}};
    refused = Apply(*store_, op);
    if (refused.ok()) Apply(model_, op);
  }
  EXPECT_TRUE(IsTyped(refused)) << refused << " after " << puts << " puts";
  EXPECT_EQ(Difference(*store_, model_), "");
  if (KindOf(refused) != ErrorKind::kLatched) {
    EXPECT_NO_FATAL_FAILURE(Do({.kind = ModelOp::Kind::kDelete, .name = "o/3"}));
  }
  EmptyFileSystem();
  const absl::Status closed = store_->Close();
  EXPECT_TRUE(closed.ok() || IsTyped(closed)) << closed;
  store_.reset();
  Open();
  EXPECT_EQ(Difference(*store_, model_), "");
  EXPECT_NO_FATAL_FAILURE(Do({.kind = ModelOp::Kind::kPut, .name = "again", .value = {.size = 70000, .seed = 3}}));
}

TEST_P(FullDiskTest, CloseAndOpenOnAFullFileSystem) {
  ASSERT_NO_FATAL_FAILURE(CreateAndFill(uint64_t{64} << 20));
  ASSERT_NO_FATAL_FAILURE(FillFileSystem(0));
  const absl::Status closed = store_->Close();
  EXPECT_TRUE(closed.ok() || IsTyped(closed)) << closed;
  store_.reset();
  for (const auto mode : {StoreOptions::Mode::kReadOnly, StoreOptions::Mode::kReadWrite}) {
    StoreOptions options = Options();
    options.mode = mode;
    const auto opened = Store::Open(shelf(), options);
    if (opened.ok()) {
      EXPECT_EQ(Difference(**opened, model_), "");
    } else {
      EXPECT_EQ(mode, StoreOptions::Mode::kReadWrite) << "reading needs no room: " << opened.status();
      EXPECT_TRUE(IsTyped(opened.status())) << opened.status();
    }
  }
  EmptyFileSystem();
  Open();
  EXPECT_EQ(Difference(*store_, model_), "");
}

TEST_P(FullDiskTest, GrowingAndBackingUpWithoutRoom) {
  ASSERT_NO_FATAL_FAILURE(CreateAndFill(uint64_t{64} << 20));
  ASSERT_NO_FATAL_FAILURE(FillFileSystem(uint64_t{20} << 20));
  const auto grown = store_->Grow({.capacity = uint64_t{64} << 20});
  EXPECT_TRUE(IsTyped(grown.status())) << grown.status();
  ASSERT_NO_FATAL_FAILURE(EmptyFileSystem());
  ASSERT_NO_FATAL_FAILURE(FillFileSystem(0));
  const absl::Status backed_up = store_->Backup(mount_ + "/backup");
  EXPECT_TRUE(backed_up.ok() || IsTyped(backed_up)) << backed_up;  // the index may be small enough for what is left
  EXPECT_EQ(Difference(*store_, model_), "");
  EmptyFileSystem();
  EXPECT_OK(store_->Grow({.capacity = uint64_t{64} << 20}));
  EXPECT_OK(store_->Backup(mount_ + "/backup"));
  EXPECT_EQ(Difference(*store_, model_), "");
}

// The file system stops as after an error of its disk: every write fails, what is acknowledged is there afterwards.
TEST_P(FullDiskTest, TheFileSystemShutsDownUnderAnOpenStore) {
  ASSERT_NO_FATAL_FAILURE(CreateAndFill(uint64_t{64} << 20));
  const int fd = ::open(mount_.c_str(), O_RDONLY | O_DIRECTORY);
  ASSERT_GE(fd, 0);
  uint32_t how = 1;  // with the log written; both file systems know it
  const int shut = ::ioctl(fd, kShutDown, &how);
  ::close(fd);
  if (shut != 0) GTEST_SKIP() << GetParam() << " cannot be shut down";
  const std::string bytes = RandomBytes(70000, 1);
  const absl::Status put = store_->Put(BytesItem("lost", bytes)).status();
  EXPECT_FALSE(put.ok());
  EXPECT_TRUE(IsTyped(put)) << put;
  const absl::Status closed = store_->Close();
  EXPECT_TRUE(closed.ok() || IsTyped(closed)) << closed;
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(Unmount());
  ASSERT_TRUE(Mount(""));
  Open();
  EXPECT_EQ(Difference(*store_, model_), "");
  EXPECT_NO_FATAL_FAILURE(Do({.kind = ModelOp::Kind::kPut, .name = "again", .value = {.size = 70000, .seed = 3}}));
}

TEST_P(FullDiskTest, AReadOnlyFileSystemIsReadAndNotWritten) {
  ASSERT_NO_FATAL_FAILURE(CreateAndFill(uint64_t{64} << 20));
  ASSERT_OK(store_->Close());
  store_.reset();
  ASSERT_NO_FATAL_FAILURE(Unmount());
  ASSERT_TRUE(Mount("ro"));
  const auto writer = Store::Open(shelf(), Options());
  EXPECT_FALSE(writer.ok());
  EXPECT_FALSE(std::string(writer.status().message()).empty());
  StoreOptions options = Options();
  options.mode = StoreOptions::Mode::kReadOnly;
  ASSERT_OK_AND_ASSIGN(store_, Store::Open(shelf(), options));
  EXPECT_EQ(Difference(*store_, model_), "");
}

INSTANTIATE_TEST_SUITE_P(FileSystems, FullDiskTest, ::testing::Values("ext4", "xfs"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace tensorshelf
