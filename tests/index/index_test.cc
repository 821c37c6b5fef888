// Goal: the Index contract on a real RocksDB: open modes, commits, batches, scans, snapshots, backups.
// Method: small hand-made states, read back through every reader, in this process and after a reopen.

#include "index/index.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/foundation/little_endian.h"
#include "index/record_codec.h"
#include "tests/index/temporary_index.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::InlineRecord;
using testing::NameOf;
using testing::Reopen;
using testing::SmallRecord;
using testing::TemporaryDirectory;

using Mode = Index::Mode;

class IndexTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_OK_AND_ASSIGN(index_, Index::Open(path_, Mode::kCreate, options_)); }

  // Commits one object under one name.
  void Put(const std::string& name, uint64_t generation) {
    auto batch = index_->NewBatch();
    ASSERT_OK(batch->PutObject(SmallRecord(generation), {}));
    batch->PutName(name, NameOf(generation));
    ASSERT_OK(index_->Commit(*batch, ++commit_));
  }

  std::vector<std::string> Names(const std::string& prefix = "", const std::string& start = "",
                                 const IndexSnapshot* snapshot = nullptr) {
    std::vector<std::string> names;
    EXPECT_OK(index_->ScanNames(
        prefix, start,
        [&](const std::string& name, const NameRow&) {
          names.push_back(name);
          return true;
        },
        snapshot));
    return names;
  }

  TemporaryDirectory directory_;
  const std::string path_ = directory_.File("index");
  IndexOptions options_;
  std::unique_ptr<Index> index_;
  uint64_t commit_ = 0;
};

TEST_F(IndexTest, AnObjectIsFoundByNameAtOnceAndAfterReopen) {
  Put("a", 7);
  for (int round = 0; round < 2; ++round) {
    ASSERT_OK_AND_ASSIGN(const FoundObject found, index_->FindObject("a"));
    EXPECT_EQ(found.generation, 7u);
    EXPECT_EQ(*found.record, SmallRecord(7));
    EXPECT_EQ(found.payload, nullptr);
    EXPECT_FAILS(index_->FindObject("b"), absl::StatusCode::kNotFound, "b");
    ASSERT_OK_AND_ASSIGN(const CommitRow commit, index_->ReadCommit());
    EXPECT_EQ(commit.commit, 1u);
    EXPECT_GT(commit.time_ns, 0);
    ASSERT_OK(Reopen(index_, path_));
  }
}

TEST_F(IndexTest, AnInlineObjectComesWithItsPayload) {
  const std::string payload = "a scalar";
  auto batch = index_->NewBatch();
  ASSERT_OK(batch->PutInlineObject(InlineRecord(9, payload.size()), BytesOf(payload)));
  batch->PutName("scalar", NameRow{.flags = NameRow::kInline, .generation = 9, .tlvs = {}});
  batch->PutInlineCount(InlineCountRow{.rows = 1, .bytes = payload.size()});
  ASSERT_OK(index_->Commit(*batch, 1));
  for (int round = 0; round < 2; ++round) {
    ASSERT_OK_AND_ASSIGN(const FoundObject found, index_->FindObject("scalar"));
    ASSERT_NE(found.payload, nullptr);
    EXPECT_EQ(*found.payload, payload);
  }
  ASSERT_OK_AND_ASSIGN(const InlineCountRow count, index_->ReadInlineCount());
  EXPECT_EQ(count, (InlineCountRow{.rows = 1, .bytes = payload.size()}));
  EXPECT_OK(index_->FindRecord(9, true));
  EXPECT_FAILS(index_->FindRecord(10, true), absl::StatusCode::kNotFound, "10");
}

TEST_F(IndexTest, OpenModesAnswerToWhatIsThere) {
  const std::string absent = directory_.File("absent");
  EXPECT_FAILS(Index::Open(path_, Mode::kCreate, options_), absl::StatusCode::kAlreadyExists, path_);
  EXPECT_FAILS(Index::Open(path_, Mode::kReadWrite, options_), absl::StatusCode::kFailedPrecondition, "locked");
  for (const Mode mode : {Mode::kReadWrite, Mode::kReadOnly, Mode::kBesideWriter}) {
    EXPECT_FAILS(Index::Open(absent, mode, options_), absl::StatusCode::kNotFound, absent);
  }
  EXPECT_FALSE(std::filesystem::exists(absent));
  struct stat status;
  ASSERT_EQ(::stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST_F(IndexTest, StateRowsAreReadBack) {
  const SuperRow super{.store_uuid = {1, 2, 3}, .compat = 1, .ro_compat = 2, .incompat = 4, .epoch = 5};
  const FileRow one{.file_id = 1, .device_uuid = {9}, .size = 1 << 20, .data_begin = 4096, .data_end = 1 << 19};
  const FileRow two{.file_id = 300, .device_uuid = {8}, .size = 1 << 21, .data_begin = 4096, .data_end = 1 << 19};
  const DeviceRow device{.uuid = {9}, .tier_id = 2, .tier_name = "nvme"};
  const Extent bad{.file_id = 1, .units = 3, .first_unit = 77};
  auto batch = index_->NewBatch();
  batch->PutSuper(super);
  batch->PutFile(two);
  batch->PutFile(one);
  batch->PutDevice(device);
  const TuningRow tuning{.device_uuid = {9}, .io_size = 2 << 20, .queue_depth = 16, .worker_count = 4};
  batch->PutTuning(tuning);
  batch->PutFsyncSlot(1, 11);
  batch->PutFsyncSlot(300, 12);
  batch->PutBadUnits(bad);
  ASSERT_OK(index_->Commit(*batch, 1));
  index_.reset();

  ASSERT_OK_AND_ASSIGN(const IndexProbe probe, ProbeIndex(path_, ProbeMode::kPointInTime, options_));
  EXPECT_TRUE(probe.exists);
  EXPECT_EQ(probe.super, super);
  EXPECT_EQ(probe.commit.commit, 1u);
  EXPECT_EQ(probe.files, (std::vector<FileRow>{one, two}));
  EXPECT_EQ(probe.devices, std::vector<DeviceRow>{device});
  EXPECT_EQ(probe.fsync_slots, (std::vector<std::pair<uint32_t, uint64_t>>{{1, 11}, {300, 12}}));

  ASSERT_OK(Reopen(index_, path_));
  ASSERT_OK_AND_ASSIGN(const auto super_read, index_->ReadSuper());
  EXPECT_EQ(super_read, super);
  ASSERT_OK_AND_ASSIGN(const auto bad_read, index_->ReadBadUnits());
  EXPECT_EQ(bad_read, std::vector<Extent>{bad});
  ASSERT_OK_AND_ASSIGN(const auto tunings, index_->ReadTunings());
  EXPECT_EQ(tunings, std::vector<TuningRow>{tuning});

  batch = index_->NewBatch();
  batch->DeleteFile(1);
  batch->DeleteDevice(device.uuid);
  ASSERT_OK(index_->Commit(*batch, 2));
  ASSERT_OK_AND_ASSIGN(const auto files, index_->ReadFiles());
  EXPECT_EQ(files, std::vector<FileRow>{two});
  ASSERT_OK_AND_ASSIGN(const auto tunings_left, index_->ReadTunings());
  EXPECT_EQ(tunings_left, std::vector<TuningRow>{});
  ASSERT_OK_AND_ASSIGN(const auto slots, index_->ReadFsyncSlots());
  EXPECT_EQ(slots, (std::vector<std::pair<uint32_t, uint64_t>>{{300, 12}}));
}

TEST_F(IndexTest, ReadOnlyOpensAndProbesChangeNothingOnDisk) {
  Put("a", 1);
  index_.reset();
  const auto listing = [&] {
    std::map<std::string, std::pair<uint64_t, std::filesystem::file_time_type>> files;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) {
      files[entry.path()] = {entry.file_size(), entry.last_write_time()};
    }
    return files;
  };
  const auto before = listing();
  ASSERT_OK(ProbeIndex(path_, ProbeMode::kPointInTime, options_));
  ASSERT_OK(ProbeIndex(path_, ProbeMode::kSkipCorruptedRecords, options_));
  for (const Mode mode : {Mode::kReadOnly, Mode::kBesideWriter}) {
    ASSERT_OK_AND_ASSIGN(auto reader, Index::Open(path_, mode, options_));
    EXPECT_OK(reader->FindObject("a"));
    EXPECT_OK(reader->VerifyFiles());
    const auto snapshot = reader->NewSnapshot();
    EXPECT_EQ(snapshot->commit(), 1u);
    EXPECT_OK(reader->FindObject("a", snapshot.get()));
    EXPECT_FAILS(reader->Commit(*reader->NewBatch(), 9), absl::StatusCode::kFailedPrecondition, "for reading");
    EXPECT_FAILS(reader->Flush(), absl::StatusCode::kFailedPrecondition, "for reading");
  }
  EXPECT_EQ(listing(), before);
}

TEST_F(IndexTest, AProbeOfNothingSaysSo) {
  ASSERT_OK_AND_ASSIGN(const IndexProbe probe, ProbeIndex(directory_.File("no"), ProbeMode::kPointInTime, options_));
  EXPECT_FALSE(probe.exists);
  EXPECT_FALSE(std::filesystem::exists(directory_.File("no")));
}

TEST_F(IndexTest, ABatchSeesItsOwnNamesOverTheIndex) {
  for (const char* name : {"a/1", "a/2", "a/3", "b"}) Put(name, commit_ + 1);
  auto batch = index_->NewBatch();
  batch->DeleteName("a/2");
  batch->PutName("a/3", NameOf(30));
  batch->PutName("a/4", NameOf(40));
  batch->PutName("a/0", NameOf(10));
  std::map<std::string, uint64_t> seen;
  const auto visit = [&](const std::string& name, const NameRow& row) {
    seen[name] = row.generation;
    return true;
  };
  ASSERT_OK(batch->ScanNames("a/", visit));
  EXPECT_EQ(seen, (std::map<std::string, uint64_t>{{"a/0", 10}, {"a/1", 1}, {"a/3", 30}, {"a/4", 40}}));
  ASSERT_OK_AND_ASSIGN(const auto deleted, batch->FindName("a/2"));
  EXPECT_EQ(deleted, std::nullopt);
  ASSERT_OK_AND_ASSIGN(const auto below, batch->FindName("b"));
  EXPECT_EQ(below, NameOf(4));
  EXPECT_EQ(Names("a/"), (std::vector<std::string>{"a/1", "a/2", "a/3"}));

  std::vector<std::string> first_two;
  ASSERT_OK(batch->ScanNames("a/", [&](const std::string& name, const NameRow&) {
    first_two.push_back(name);
    return first_two.size() < 2;
  }));
  EXPECT_EQ(first_two, (std::vector<std::string>{"a/0", "a/1"}));
}

TEST_F(IndexTest, ARollbackTakesBackTheRowsAndTheOverlay) {
  Put("kept", 1);
  auto batch = index_->NewBatch();
  batch->PutName("x", NameOf(2));
  batch->SetSavePoint();
  batch->PutName("x", NameOf(3));
  batch->DeleteName("kept");
  batch->PutName("new", NameOf(4));
  batch->SetSavePoint();
  batch->DeleteName("x");
  batch->DropSavePoint();
  ASSERT_OK(batch->PutObject(SmallRecord(5), {}));
  ASSERT_OK_AND_ASSIGN(auto x, batch->FindName("x"));
  EXPECT_EQ(x, std::nullopt);
  batch->RollbackToSavePoint();
  ASSERT_OK_AND_ASSIGN(x, batch->FindName("x"));
  EXPECT_EQ(x, NameOf(2));
  ASSERT_OK_AND_ASSIGN(const auto kept, batch->FindName("kept"));
  EXPECT_EQ(kept, NameOf(1));
  ASSERT_OK_AND_ASSIGN(const auto added, batch->FindName("new"));
  EXPECT_EQ(added, std::nullopt);
  ASSERT_OK(index_->Commit(*batch, ++commit_));
  EXPECT_EQ(Names(), (std::vector<std::string>{"kept", "x"}));
  EXPECT_FAILS(index_->FindRecord(5, false), absl::StatusCode::kNotFound, "5");
}

TEST_F(IndexTest, ScansKeepToTheirBounds) {
  for (const std::string& name : {std::string("a"), std::string("a\0b", 3), std::string("ab"), std::string("a\xff"),
                                  std::string("a\xff\xff"), std::string("b"), std::string("\xff\xff")}) {
    Put(name, commit_ + 1);
  }
  EXPECT_EQ(Names().size(), 7u);
  EXPECT_TRUE(std::ranges::is_sorted(Names()));
  EXPECT_EQ(Names("a").size(), 5u);
  EXPECT_EQ(Names("a\xff"), (std::vector<std::string>{"a\xff", "a\xff\xff"}));
  EXPECT_EQ(Names("\xff"), std::vector<std::string>{"\xff\xff"});
  EXPECT_EQ(Names("a", "ab"), (std::vector<std::string>{"ab", "a\xff", "a\xff\xff"}));
  EXPECT_EQ(Names("a", "c"), std::vector<std::string>{});
  EXPECT_EQ(Names("", "b"), (std::vector<std::string>{"b", "\xff\xff"}));

  std::vector<uint64_t> generations;
  const auto visit = [&](uint64_t generation, std::span<const std::byte> row) {
    EXPECT_EQ(DecodeRecord(row)->generation, generation);
    generations.push_back(generation);
    return generations.size() < 4;
  };
  ASSERT_OK(index_->ScanObjects(2, 5, visit));
  EXPECT_EQ(generations, (std::vector<uint64_t>{2, 3, 4}));
  ASSERT_OK(index_->ScanObjects(6, UINT64_MAX, visit));
  EXPECT_EQ(generations, (std::vector<uint64_t>{2, 3, 4, 6}));
}

TEST_F(IndexTest, ASnapshotKeepsItsMoment) {
  Put("a", 1);
  Put("gone", 2);
  auto snapshot = index_->NewSnapshot();
  EXPECT_EQ(snapshot->commit(), 2u);
  auto batch = index_->NewBatch();
  batch->DeleteName("gone");
  batch->DeleteObject(SmallRecord(2));
  ASSERT_OK(index_->Commit(*batch, ++commit_));
  Put("a", 3);
  Put("z", 4);
  ASSERT_OK(index_->Flush());

  EXPECT_EQ(index_->FindObject("a")->generation, 3u);
  EXPECT_EQ(index_->FindObject("a", snapshot.get())->generation, 1u);
  EXPECT_OK(index_->FindObject("gone", snapshot.get()));
  EXPECT_FAILS(index_->FindObject("gone"), absl::StatusCode::kNotFound, "gone");
  EXPECT_FAILS(index_->FindObject("z", snapshot.get()), absl::StatusCode::kNotFound, "z");
  EXPECT_EQ(Names("", "", snapshot.get()), (std::vector<std::string>{"a", "gone"}));
  EXPECT_EQ(Names(), (std::vector<std::string>{"a", "z"}));
}

TEST_F(IndexTest, SumsBeyondTheRecordLieInRows) {
  constexpr uint64_t kBlocks = 2 * kSumsPerRow + 100;
  ObjectRecord record = SmallRecord(5);
  record.stored_bytes = record.logical_bytes = kBlocks * record.block_bytes() - 1;
  record.sums.clear();
  std::vector<uint64_t> sums(kBlocks);
  for (size_t i = 0; i < sums.size(); ++i) sums[i] = i * 0x9e3779b97f4a7c15;
  auto batch = index_->NewBatch();
  EXPECT_FAILS(batch->PutObject(record, std::span(sums).first(kBlocks - 1)), absl::StatusCode::kInvalidArgument,
               "sums");
  ASSERT_OK(batch->PutObject(record, sums));
  ASSERT_OK(index_->Commit(*batch, ++commit_));

  std::vector<uint64_t> part(kSumsPerRow + 10);
  ASSERT_OK(index_->ReadSums(5, kSumsPerRow - 5, part));
  EXPECT_TRUE(std::equal(part.begin(), part.end(), sums.begin() + kSumsPerRow - 5));
  part.resize(1);
  ASSERT_OK(index_->ReadSums(5, kBlocks - 1, part));
  EXPECT_EQ(part[0], sums.back());
  part.resize(2);
  EXPECT_FAILS(index_->ReadSums(5, kBlocks - 1, part), absl::StatusCode::kDataLoss, "sums row 2");

  // Rewriting the record alone, as a move does, leaves its sums.
  ++record.place_seq;
  batch = index_->NewBatch();
  ASSERT_OK(batch->PutObject(record, {}));
  ASSERT_OK(index_->Commit(*batch, ++commit_));
  ASSERT_OK(index_->ReadSums(5, 0, part));

  const auto before = index_->NewSnapshot();
  batch = index_->NewBatch();
  batch->DeleteObject(record);
  ASSERT_OK(index_->Commit(*batch, ++commit_));
  EXPECT_FAILS(index_->ReadSums(5, 0, part), absl::StatusCode::kDataLoss, "missing");
  EXPECT_OK(index_->ReadSums(5, 0, part, before.get()));
}

TEST_F(IndexTest, DeletingAnUnknownRecordTakesItsSumsAndNoOthers) {
  std::vector<uint64_t> sums(100);
  auto batch = index_->NewBatch();
  for (const uint64_t generation : {4, 5, 6}) {
    ObjectRecord record = SmallRecord(generation);
    record.stored_bytes = record.logical_bytes = sums.size() * record.block_bytes();
    record.sums.clear();
    ASSERT_OK(batch->PutObject(record, sums));
  }
  ASSERT_OK(index_->Commit(*batch, ++commit_));
  batch = index_->NewBatch();
  batch->DeleteObject(uint64_t{5});
  ASSERT_OK(index_->Commit(*batch, ++commit_));
  EXPECT_OK(index_->ReadSums(4, 0, sums));
  EXPECT_FAILS(index_->ReadSums(5, 0, sums), absl::StatusCode::kDataLoss, "missing");
  EXPECT_OK(index_->ReadSums(6, 0, sums));
  EXPECT_FAILS(index_->FindRecord(5, false), absl::StatusCode::kNotFound, "5");
}

TEST_F(IndexTest, CommitNumbersRise) {
  Put("a", 1);
  ASSERT_OK(Reopen(index_, path_));
  auto batch = index_->NewBatch();
  batch->DeleteName("a");
  EXPECT_FAILS(index_->Commit(*batch, 1), absl::StatusCode::kInvalidArgument, "commit 1");
  EXPECT_OK(index_->FindObject("a"));
  EXPECT_OK(index_->Commit(*batch, 5));
}

TEST_F(IndexTest, ANameWithoutARecordIsDataLoss) {
  auto batch = index_->NewBatch();
  batch->PutName("dangling", NameOf(77));
  ASSERT_OK(index_->Commit(*batch, 1));
  EXPECT_FAILS(index_->FindObject("dangling"), absl::StatusCode::kDataLoss, "77");
}

TEST_F(IndexTest, ANameWithAnUnknownCriticalPartIsNotRead) {
  Put("other", 1);
  auto batch = index_->NewBatch();
  batch->PutName("future", NameRow{.flags = 0, .generation = 1, .tlvs = {{.tag = kTlvCritical | 9, .value = "?"}}});
  ASSERT_OK(index_->Commit(*batch, 2));
  EXPECT_FAILS(index_->FindObject("future"), absl::StatusCode::kUnimplemented, "future");
  EXPECT_EQ(Names(), (std::vector<std::string>{"future", "other"}));
}

TEST_F(IndexTest, ABackupIsRestoredElsewhere) {
  const std::string backup = directory_.File("backup");
  const std::string restored = directory_.File("restored");
  Put("first", 1);
  ASSERT_OK(index_->Backup(backup));
  Put("second", 2);
  ASSERT_OK(index_->Backup(backup));
  Put("third", 3);

  ASSERT_OK(RestoreIndex(backup, restored));
  ASSERT_OK_AND_ASSIGN(auto copy, Index::Open(restored, Mode::kReadWrite, options_));
  EXPECT_OK(copy->FindObject("first"));
  EXPECT_OK(copy->FindObject("second"));
  EXPECT_FAILS(copy->FindObject("third"), absl::StatusCode::kNotFound, "third");
  EXPECT_EQ(copy->ReadCommit()->commit, 2u);
  EXPECT_FAILS(RestoreIndex(backup, restored), absl::StatusCode::kAlreadyExists, restored);
  EXPECT_FALSE(RestoreIndex(directory_.File("nothing"), directory_.File("elsewhere")).ok());
}

TEST_F(IndexTest, StatsCountWhatHappened) {
  Put("a", 1);
  ASSERT_OK(index_->FindObject("a"));
  ASSERT_OK(index_->FindObject("a"));
  const Index::Stats stats = index_->stats();
  EXPECT_EQ(stats.commits, 1u);
  EXPECT_EQ(stats.cache_hits, 1u);
  EXPECT_EQ(stats.cache_misses, 1u);
  EXPECT_GT(stats.cache_bytes, sizeof(ObjectRecord));
  EXPECT_GT(stats.memory_bytes, 0u);
  EXPECT_GT(stats.file_bytes, 0u);
}

TEST_F(IndexTest, DamageInATableFileIsFound) {
  for (int i = 0; i < 50; ++i) Put("name" + std::to_string(i), i + 1);
  ASSERT_OK(index_->Flush());
  ASSERT_OK(index_->VerifyFiles());
  index_.reset();
  for (const auto& entry : std::filesystem::directory_iterator(path_)) {
    if (entry.path().extension() != ".sst" || entry.file_size() < 4096) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(200);
    file.put('\xa5');
  }
  ASSERT_OK_AND_ASSIGN(index_, Index::Open(path_, Mode::kReadOnly, options_));
  EXPECT_FAILS(index_->VerifyFiles(), absl::StatusCode::kDataLoss, "index");
}

}  // namespace
}  // namespace tensorshelf
