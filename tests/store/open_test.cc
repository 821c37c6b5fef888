// The open procedure's own cases: what it must accept, and what it must refuse, each with a message of its own. Each
// test damages a copy of one closed store in one way.

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/linux_disk.h"
#include "store/grow_store.h"
#include "store/label.h"
#include "store/relocate.h"
#include "tests/store/shelf_copy.h"
#include "tests/testing/faulty_disk.h"

namespace tensorshelf {
namespace {

namespace fs = std::filesystem;
using testing::Fails;
using testing::IsOk;

ModelOp PutOp(const std::string& name, uint64_t size, uint64_t seed) {
  return {.kind = ModelOp::Kind::kPut, .name = name, .value = {.size = size, .seed = seed}};
}

class OpenTest : public ShelfCopyFixture {
 protected:
  OpenTest() {
    MakeOriginal({PutOp("a", 100000, 1),
                  PutOp("b", 300, 2),
                  PutOp("c", 5000, 3),
                  {.kind = ModelOp::Kind::kClone, .name = "a", .to = "d"}});
    Restore();
  }
  absl::StatusOr<std::unique_ptr<Store>> Open() { return Store::Open(shelf_, SmallOptions()); }
  std::string data_file() const { return shelf_ + "/00000001.tsd"; }
  std::string index() const { return shelf_ + "/index"; }

  // The store as a kill leaves it: copied while it is open, after `commits` puts whose rows are in the log alone.
  void LeaveUnclean(uint64_t commits) {
    StoreOptions options = SmallOptions();
    options.index.memtable_bytes = 16 << 20;
    ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf_, options));
    for (uint64_t i = 0; i < commits; ++i) {
      const ModelOp op = PutOp(absl::StrCat("log/", i), 200, i);
      ASSERT_OK(Apply(*store, op));
      ASSERT_EQ(Apply(model_, op), absl::StatusCode::kOk);
    }
    fs::copy(shelf_, root_ + "/left", fs::copy_options::recursive);
    ASSERT_OK(store->Close());
    store.reset();
    fs::remove_all(shelf_);
    fs::rename(root_ + "/left", shelf_);
  }
  std::string NewestLog() const {
    std::string newest;
    for (const auto& entry : fs::directory_iterator(index())) {
      const std::string path = entry.path().string();
      if (absl::EndsWith(path, ".log") && entry.file_size() > 0) newest = std::max(newest, path);
    }
    return newest;
  }
};

TEST_F(OpenTest, ATornTailOfTheLogOpensWithoutItsLastCommit) {
  ASSERT_NO_FATAL_FAILURE(LeaveUnclean(20));
  const std::string log = NewestLog();
  ASSERT_NE(log, "");
  fs::resize_file(log, fs::file_size(log) - 40);
  ASSERT_OK_AND_ASSIGN(auto store, Open());
  Model without = model_;
  without.erase("log/19");
  EXPECT_EQ(Difference(*store, without), "");
}

TEST_F(OpenTest, DamageInsideTheLogIsRefused) {
  // RocksDB skips the rest of a block of 32 KiB with a damaged record: commits in later blocks betray the damage.
  ASSERT_NO_FATAL_FAILURE(LeaveUnclean(300));
  const std::string log = NewestLog();
  ASSERT_NE(log, "");
  FlipByte(log, fs::file_size(log) / 2);
  const auto opened = Open();
  ASSERT_EQ(KindOf(opened.status()), ErrorKind::kLostCommits)
      << opened.status() << " " << (opened.ok() ? Difference(**opened, model_) : "") << ", log of "
      << fs::file_size(log) << " bytes";
  StoreOptions options = SmallOptions();
  options.accept_lost_commits = true;
  ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf_, options));
  ASSERT_OK_AND_ASSIGN(const Object object, store->Find("a"));  // what lies before the damage
  ASSERT_OK(Apply(*store, PutOp("after", 90000, 4)));
}

TEST_F(OpenTest, AnOlderIndexIsRefusedByTheWitness) {
  {
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    ASSERT_OK(Apply(*store, PutOp("newer", 50000, 4)));
    ASSERT_OK(store->Close());
  }
  fs::remove_all(index());
  fs::copy(original_ + "/index", index(), fs::copy_options::recursive);
  const auto opened = Open();
  EXPECT_EQ(KindOf(opened.status()), ErrorKind::kLostCommits) << opened.status();
  EXPECT_FAILS(opened, absl::StatusCode::kFailedPrecondition, "1 acknowledged commits are missing");
}

TEST_F(OpenTest, AnOlderDataFileIsRefusedByItsSlot) {
  {
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    ASSERT_OK(Apply(*store, PutOp("newer", 50000, 4)));
    ASSERT_OK(store->Close());
  }
  CopySparsely(original_ + "/00000001.tsd", data_file());
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "is older than the index");
}

// The witness of each commit rides on the data of the next: also a store that was never closed knows what it lost.
TEST_F(OpenTest, AnOlderIndexIsRefusedAfterAKillToo) {
  {
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    for (uint64_t i = 0; i < 3; ++i) ASSERT_OK(Apply(*store, PutOp(absl::StrCat("data/", i), 50000, i)));
    fs::copy(shelf_, root_ + "/left", fs::copy_options::recursive);
    ASSERT_OK(store->Close());
  }
  fs::remove_all(shelf_);
  fs::rename(root_ + "/left", shelf_);
  fs::remove_all(index());
  fs::copy(original_ + "/index", index(), fs::copy_options::recursive);
  EXPECT_FAILS(Open(), absl::StatusCode::kFailedPrecondition, "2 acknowledged commits are missing");
}

// Numbers that were given once stay given, or a trailer of a lost object would pass for that of another.
TEST_F(OpenTest, AfterAnAcceptedLossNumbersGoOn) {
  uint64_t lost_commit = 0, lost_generation = 0;
  {
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    const std::string bytes = RandomBytes(50000, 4);
    ASSERT_OK(store->Put(BytesItem("x", bytes)));
    ASSERT_OK_AND_ASSIGN(const CommitResult result, store->Put(BytesItem("newer", bytes)));
    lost_commit = result.commit;
    lost_generation = result.generations[0];
    ASSERT_OK(store->Close());
  }
  fs::remove_all(index());
  fs::copy(original_ + "/index", index(), fs::copy_options::recursive);
  StoreOptions options = SmallOptions();
  options.accept_lost_commits = true;
  ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf_, options));
  const std::string bytes = RandomBytes(50000, 5);
  ASSERT_OK_AND_ASSIGN(const CommitResult result, store->Put(BytesItem("after", bytes)));
  EXPECT_GT(result.commit, lost_commit);
  EXPECT_GT(result.generations[0], lost_generation);
  ASSERT_OK(store->Close());
  store.reset();
  EXPECT_OK(Open());
}

TEST_F(OpenTest, EachOpenHasAnEpochOfItsOwn) {
  uint64_t epoch = 0;
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    EXPECT_GT(store->info().epoch, epoch);
    epoch = store->info().epoch;
    // As a kill right after the open leaves it: nothing but the slots says that there was one.
    fs::copy(shelf_, root_ + "/left", fs::copy_options::recursive);
    ASSERT_OK(store->Close());
    store.reset();
    fs::remove_all(shelf_);
    fs::rename(root_ + "/left", shelf_);
  }
}

// What an earlier process wrote may be visible and not durable: nothing is built on it before it is.
TEST_F(OpenTest, EveryFileIsSyncedBeforeItIsTrusted) {
  const std::unique_ptr<Disk> base = NewLinuxDisk();
  testing::FaultyDisk disk(base.get());
  std::vector<testing::Call> calls;
  disk.OnCall([&](testing::Call call, const std::string& path) {
    const bool counts = call == testing::Call::kSync || call == testing::Call::kPWrite;
    if (counts && absl::EndsWith(path, ".tsd")) calls.push_back(call);
  });
  StoreOptions options = SmallOptions();
  options.disk = &disk;
  ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf_, options));
  ASSERT_GE(calls.size(), 3u);
  EXPECT_EQ(calls[0], testing::Call::kSync) << "before anything is written";
  EXPECT_EQ(calls[1], testing::Call::kPWrite) << "the slot of the new epoch";
  EXPECT_EQ(calls[2], testing::Call::kSync);
  disk.OnCall(nullptr);
}

TEST_F(OpenTest, ALabelOfOtherBoundsThanTheIndexKnowsIsRefused) {
  const std::unique_ptr<Disk> disk = NewLinuxDisk();
  {
    ASSERT_OK_AND_ASSIGN(const auto file, disk->Open(data_file(), {.writable = true}));
    ASSERT_OK_AND_ASSIGN(LabelReading reading, ReadLabel(*file));
    reading.label.size += 1 << 20;
    reading.label.data_end += 1 << 20;
    ++reading.label.label_seq;
    fs::resize_file(data_file(), reading.label.size);
    ASSERT_OK(WriteLabels(*file, reading.label));
  }
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "disagree");
}

TEST_F(OpenTest, WhatStandsInPlaceOfADataFile) {
  const uint64_t size = fs::file_size(data_file());
  fs::resize_file(data_file(), size - 4096);
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "was truncated");
  fs::resize_file(data_file(), size + 4096);
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "has grown");
  fs::remove(data_file());
  const auto missing = Open();
  EXPECT_EQ(KindOf(missing.status()), ErrorKind::kDeviceMissing);
  EXPECT_FAILS(missing, absl::StatusCode::kFailedPrecondition, "not found: data file 1");
  ASSERT_EQ(::mkfifo(data_file().c_str(), 0600), 0);
  const auto fifo = Open();  // and does not wait for a writer
  EXPECT_FALSE(fifo.ok());
  EXPECT_TRUE(absl::StrContains(fifo.status().message(), data_file())) << fifo.status();
  fs::remove(data_file());
  fs::create_symlink(original_ + "/00000001.tsd", data_file());
  const auto link = Open();
  EXPECT_FALSE(link.ok());
  EXPECT_TRUE(absl::StrContains(link.status().message(), data_file())) << link.status();
}

TEST_F(OpenTest, ADataFileOfAnotherStoreOrUnderAnotherNameIsRefused) {
  CreateOptions options;
  options.capacity = kCapacityMin;
  options.prefill = Prefill::kNone;
  ASSERT_OK(Store::Create(root_ + "/foreign", options));
  CopySparsely(root_ + "/foreign/00000001.tsd", data_file());
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "belongs to store");
  Restore();
  fs::rename(data_file(), shelf_ + "/00000002.tsd");
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "is data file 1 by its label");
  Restore();
  fs::remove_all(index());
  fs::copy(root_ + "/foreign/index", index(), fs::copy_options::recursive);
  EXPECT_FALSE(Open().ok());
  Restore();
  fs::remove_all(index());
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "is missing");
}

TEST_F(OpenTest, SwappedFilesOfTwoDevicesAreRefused) {
  CreateOptions options;
  options.capacity = 2 * kCapacityMin;
  options.prefill = Prefill::kNone;
  options.devices = {root_ + "/one", root_ + "/two"};
  const std::string shelf = root_ + "/both";
  ASSERT_OK(Store::Create(shelf, options));
  const std::string one = root_ + "/one/00000001.tsd";
  const std::string two = root_ + "/two/00000002.tsd";
  const std::string aside = root_ + "/aside";
  fs::rename(one, aside);
  fs::rename(two, one);
  fs::rename(aside, two);
  EXPECT_FAILS(Store::Open(shelf, SmallOptions()), absl::StatusCode::kDataLoss, "files were swapped or renamed");
}

TEST_F(OpenTest, AnUnknownIncompatibleFeatureIsRefusedByNumber) {
  const std::unique_ptr<Disk> disk = NewLinuxDisk();
  {
    ASSERT_OK_AND_ASSIGN(const auto file, disk->Open(data_file(), {.writable = true}));
    ASSERT_OK_AND_ASSIGN(LabelReading reading, ReadLabel(*file));
    reading.label.incompat |= uint64_t{1} << 41;
    ++reading.label.label_seq;
    ASSERT_OK(WriteLabels(*file, reading.label));
  }
  EXPECT_FAILS(Open(), absl::StatusCode::kFailedPrecondition, "41");
}

// The freemap is used when it is of this very state, and the scan comes to the same.
TEST_F(OpenTest, FreemapAndScanAgree) {
  std::vector<SpaceBytes> spaces;
  std::vector<uint64_t> objects;
  for (const std::string damage : {"none", "deleted", "flipped"}) {
    Restore();
    if (damage == "deleted") fs::remove(shelf_ + "/freemap");
    if (damage == "flipped") FlipByte(shelf_ + "/freemap", fs::file_size(shelf_ + "/freemap") / 2);
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    spaces.push_back(store->stats().space);
    objects.push_back(store->stats().objects);
    EXPECT_EQ(Difference(*store, model_), "") << damage;
    // "a" has two names, however they were counted: it lives until both are gone.
    ASSERT_OK(Apply(*store, {.kind = ModelOp::Kind::kDelete, .name = "a"}));
    EXPECT_EQ(store->stats().space.live, spaces.back().live) << damage;
    ASSERT_OK(Apply(*store, {.kind = ModelOp::Kind::kDelete, .name = "d"}));
    EXPECT_LT(store->stats().space.live, spaces.back().live) << damage;
  }
  for (size_t i = 1; i < spaces.size(); ++i) {
    EXPECT_EQ(spaces[i].live, spaces[0].live);
    EXPECT_EQ(spaces[i].free, spaces[0].free);
    EXPECT_EQ(objects[i], objects[0]);
  }
}

TEST_F(OpenTest, AMovedShelfOpens) {
  const std::string moved = root_ + "/elsewhere";
  fs::rename(shelf_, moved);
  ASSERT_OK_AND_ASSIGN(auto store, Store::Open(moved, SmallOptions()));
  EXPECT_EQ(Difference(*store, model_), "");
}

TEST_F(OpenTest, AForkedChildIsRefusedAndTheParentGoesOn) {
  ASSERT_OK_AND_ASSIGN(auto store, Open());
  ASSERT_OK_AND_ASSIGN(const Object object, store->Find("a"));
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(30);
    const bool find = KindOf(store->Find("a").status()) == ErrorKind::kForked;
    const bool put = KindOf(Apply(*store, PutOp("x", 10, 1))) == ErrorKind::kForked;
    store.reset();  // gives back nothing of the parent's
    ::_exit(find && put ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(Difference(*store, model_), "");
  ASSERT_OK(Apply(*store, PutOp("after", 90000, 9)));
  EXPECT_FALSE(Open().ok()) << "the child gave the parent's lock away";
}

// What a kill between the creation of a data file and its label leaves; a member without a label is damage.
TEST_F(OpenTest, AFileWithoutALabelIsDamageOnlyWhereTheIndexKnowsIt) {
  const std::string orphan = shelf_ + "/00000002.tsd";
  std::ofstream(orphan).close();
  {
    ASSERT_OK_AND_ASSIGN(auto store, Open());
    EXPECT_EQ(store->info().orphan_files, std::vector<std::string>{orphan});
    EXPECT_EQ(Difference(*store, model_), "");
    ASSERT_OK(Apply(*store, PutOp("after", 90000, 9)));
    ASSERT_OK(store->Close());
  }
  EXPECT_FAILS(GrowStore(shelf_, {.capacity = kCapacityMin}), absl::StatusCode::kFailedPrecondition, "see fsck");
  EXPECT_FAILS(RelocateShelf(shelf_, {}, /*dry_run=*/true, nullptr), absl::StatusCode::kDataLoss, "no valid label");
  fs::remove(orphan);

  fs::resize_file(data_file(), 0);
  EXPECT_FAILS(Open(), absl::StatusCode::kDataLoss, "00000001.tsd has no valid label");
  EXPECT_FAILS(GrowStore(shelf_, {.capacity = kCapacityMin}), absl::StatusCode::kDataLoss, "no valid label");
}

// The file system of the index is nearly full, says this disk.
class NearlyFullDisk : public Disk {
 public:
  explicit NearlyFullDisk(std::unique_ptr<Disk> base) : base_(std::move(base)) {}
  void set_available(uint64_t bytes) { available_ = bytes; }

  absl::StatusOr<std::unique_ptr<File>> Open(const std::string& path, const OpenOptions& options) override {
    return base_->Open(path, options);
  }
  absl::StatusOr<std::unique_ptr<IoQueue>> NewQueue(size_t depth) override { return base_->NewQueue(depth); }
  absl::StatusOr<PathInfo> Stat(const std::string& path) override { return base_->Stat(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override { return base_->List(path); }
  absl::Status MakeDirectory(const std::string& path, uint32_t mode) override {
    return base_->MakeDirectory(path, mode);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override { return base_->Rename(from, to); }
  absl::Status Remove(const std::string& path) override { return base_->Remove(path); }
  absl::Status SyncDirectory(const std::string& path) override { return base_->SyncDirectory(path); }
  absl::StatusOr<FileSystemSpace> Space(const std::string&) override {
    return FileSystemSpace{.total_bytes = uint64_t{1} << 40, .available_bytes = available_};
  }
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path, const std::string& holder) override {
    return base_->Lock(path, holder);
  }
  absl::StatusOr<std::string> LockHolder(const std::string& path) override { return base_->LockHolder(path); }

 private:
  const std::unique_ptr<Disk> base_;
  uint64_t available_ = uint64_t{1} << 39;
};

TEST_F(OpenTest, WithoutRoomForTheIndexPutsFailAndDeletesWork) {
  NearlyFullDisk disk(NewLinuxDisk());
  StoreOptions options = SmallOptions();
  options.disk = &disk;
  ASSERT_OK_AND_ASSIGN(auto store, Store::Open(shelf_, options));
  disk.set_available(5 << 20);
  const absl::Status put = Apply(*store, PutOp("x", 5000, 1));
  EXPECT_EQ(KindOf(put), ErrorKind::kIndexFull) << put;
  EXPECT_OK(Apply(*store, {.kind = ModelOp::Kind::kDelete, .name = "c"}));
  model_.erase("c");
  EXPECT_EQ(Difference(*store, model_), "");
  EXPECT_EQ(SpaceProblem(*store), "");
  disk.set_available(uint64_t{1} << 39);
  EXPECT_OK(Apply(*store, PutOp("x", 5000, 1)));
}

}  // namespace
}  // namespace tensorshelf
