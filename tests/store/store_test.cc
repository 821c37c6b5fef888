// The store as its users see it: put, find, read, slices, transactions, prefixes, views, ephemeral names, reopening.
// Runs on real files with libaio in a temporary directory; what is stored is compared byte for byte.

#include "store/store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <map>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "engine/linux_disk.h"
#include "store/witness_slot.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

class StoreTest : public StoreFixture {};

TEST_F(StoreTest, KeepsObjectsOfEverySizeOverAReopen) {
  Create();
  Open();
  const std::vector<size_t> sizes = {0,     1,     1000,  1024,   1025,    4096,          4097,
                                     65535, 65536, 65537, 300000, 1 << 20, (5 << 20) + 77};
  std::map<std::string, std::string> content;
  for (size_t size : sizes) {
    const std::string name = "object/" + std::to_string(size);
    content[name] = RandomBytes(size, size);
    ASSERT_OK(store_->Put(BytesItem(name, content[name])));
  }
  for (const auto& [name, bytes] : content) EXPECT_EQ(Get(name), bytes) << name;
  Reopen();
  for (const auto& [name, bytes] : content) EXPECT_EQ(Get(name), bytes) << name;
  EXPECT_EQ(store_->stats().names, sizes.size());
}

TEST_F(StoreTest, ManyObjectsInOneCommitAndInRandomOrderBack) {
  Create();
  Open();
  std::map<std::string, std::string> content;
  for (int i = 0; i < 2000; ++i) content["k" + std::to_string(i)] = RandomBytes(4096, i);
  std::vector<PutItem> items;
  for (const auto& [name, bytes] : content) items.push_back(BytesItem(name, bytes));
  ASSERT_OK_AND_ASSIGN(const CommitResult result, store_->Put(items));
  EXPECT_EQ(result.generations.size(), items.size());
  std::vector<std::string> names;
  for (const auto& [name, bytes] : content) names.push_back(name);
  std::shuffle(names.begin(), names.end(), std::mt19937(7));
  ASSERT_OK_AND_ASSIGN(std::vector<Object> objects, store_->FindMany(names));
  std::vector<std::string> out(names.size(), std::string(4096, '\0'));
  std::vector<ReadRequest> requests;
  for (size_t i = 0; i < names.size(); ++i) {
    requests.push_back({.object = &objects[i], .offset = 0, .to = Span(out[i])});
  }
  ASSERT_OK(store_->Read(requests, {}));
  for (size_t i = 0; i < names.size(); ++i) ASSERT_EQ(out[i], content[names[i]]) << names[i];
  // They were written, and are read, side by side: far fewer transfers than objects.
  EXPECT_LT(store_->stats().io.write_ops, 200u);
  EXPECT_LT(store_->stats().io.read_ops, 200u);
}

TEST_F(StoreTest, RangesReadOnlyWhatTheyTouchAndAreExact) {
  Create();
  Open();
  const std::string bytes = RandomBytes((3 << 20) + 12345, 1);
  ASSERT_OK(store_->Put(BytesItem("big", bytes)));
  ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("big"));
  std::mt19937 random(5);
  for (int i = 0; i < 200; ++i) {
    const size_t offset = random() % bytes.size();
    const size_t length = std::min<size_t>(random() % 200000, bytes.size() - offset);
    std::string out(length, '\0');
    const ReadRequest request{.object = &object, .offset = offset, .to = Span(out)};
    ASSERT_OK(store_->Read({&request, 1}, {.verify = i % 3 != 0}));
    ASSERT_EQ(out, bytes.substr(offset, length)) << "range " << offset << "+" << length;
  }
  const uint64_t before = store_->stats().io.read_bytes;
  std::string row(1000, '\0');
  const ReadRequest request{.object = &object, .offset = 70000, .to = Span(row)};
  ASSERT_OK(store_->Read({&request, 1}, {}));
  EXPECT_LE(store_->stats().io.read_bytes - before, 65536u);
  std::string beyond(10, '\0');
  const ReadRequest bad{.object = &object, .offset = bytes.size() - 5, .to = Span(beyond)};
  EXPECT_FAILS(store_->Read({&bad, 1}, {}), absl::StatusCode::kInvalidArgument, "are beyond its");
}

TEST_F(StoreTest, ReplacingAndDeletingGivesSpaceBack) {
  Create();
  Open();
  const uint64_t free = store_->stats().space.free;
  for (int i = 0; i < 40; ++i) ASSERT_OK(store_->Put(BytesItem("x", RandomBytes(8 << 20, i))));  // 5 x the capacity
  EXPECT_EQ(Get("x"), RandomBytes(8 << 20, 39));
  ASSERT_OK(Delete("x"));
  const SpaceBytes space = store_->stats().space;
  EXPECT_EQ(space.free, free);
  EXPECT_EQ(space.live + space.parked + space.reserved, 0u);
}

TEST_F(StoreTest, AFullStoreRefusesAndStaysAsItWas) {
  Create();
  Open();
  const std::string kept = RandomBytes(8 << 20, 1);
  ASSERT_OK(store_->Put(BytesItem("kept", kept)));
  const SpaceBytes before = store_->stats().space;
  const std::string large = RandomBytes(60 << 20, 2);
  const auto put = store_->Put(BytesItem("kept", large));
  EXPECT_FAILS(put, absl::StatusCode::kResourceExhausted, "");
  EXPECT_EQ(KindOf(put.status()), ErrorKind::kFull);
  EXPECT_EQ(store_->stats().space.free, before.free);
  EXPECT_EQ(Get("kept"), kept);
}

TEST_F(StoreTest, ALeaseKeepsReplacedBytes) {
  Create();
  Open();
  const std::string old = RandomBytes(5 << 20, 1);  // more blocks than a record has room for sums
  ASSERT_OK(store_->Put(BytesItem("x", old)));
  {
    ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("x"));
    for (int i = 2; i < 20; ++i) ASSERT_OK(store_->Put(BytesItem("x", RandomBytes(5 << 20, i))));
    EXPECT_GE(store_->stats().space.parked, 5u << 20);
    EXPECT_EQ(ReadAll(object), old);
    ASSERT_OK(Delete("x"));
    EXPECT_EQ(ReadAll(object), old);
    ASSERT_OK_AND_ASSIGN(const std::vector<uint64_t> sums, store_->ReadSums(object));
    EXPECT_EQ(sums.size(), 80u);
  }
  EXPECT_EQ(store_->stats().space.parked, 0u);
}

TEST_F(StoreTest, ATransactionIsAllOrNothing) {
  Create();
  Open();
  ASSERT_OK(store_->Put(BytesItem("a", "old a")));
  {
    ASSERT_OK_AND_ASSIGN(Transaction tx, store_->Begin());
    const std::string value = RandomBytes(100000, 3);
    const PutItem items[] = {BytesItem("a", value), BytesItem("b", value)};
    ASSERT_OK(tx.Put(items));
    tx.Delete("missing");
    EXPECT_FAILS(tx.Commit(), absl::StatusCode::kNotFound, "missing");
  }
  EXPECT_EQ(Get("a"), "old a");
  EXPECT_FALSE(*store_->Contains("b"));
  {
    ASSERT_OK_AND_ASSIGN(Transaction tx, store_->Begin());
    const std::string value = RandomBytes(100000, 3);
    const PutItem item = BytesItem("dropped", value);
    ASSERT_OK(tx.Put({&item, 1}));
  }
  EXPECT_FALSE(*store_->Contains("dropped"));
  EXPECT_EQ(store_->stats().space.reserved, 0u);
}

TEST_F(StoreTest, Preconditions) {
  Create();
  Open();
  const std::string bytes = "one";
  PutItem item = BytesItem("a", bytes);
  item.precondition = {Precondition::Kind::kExists};
  EXPECT_EQ(KindOf(store_->Put(item).status()), ErrorKind::kPrecondition);
  item.precondition = {Precondition::Kind::kAbsent};
  ASSERT_OK_AND_ASSIGN(const CommitResult first, store_->Put(item));
  EXPECT_EQ(KindOf(store_->Put(item).status()), ErrorKind::kPrecondition);
  item.precondition = {Precondition::Kind::kGeneration, first.generations[0]};
  ASSERT_OK(store_->Put(item));
  EXPECT_EQ(KindOf(store_->Put(item).status()), ErrorKind::kPrecondition);
}

TEST_F(StoreTest, PrefixOperationsMoveNamesAndNoData) {
  Create();
  Open();
  std::map<std::string, std::string> content;
  for (int i = 0; i < 20; ++i) {
    content["model/" + std::to_string(i)] = RandomBytes(i % 2 == 0 ? 200 : 20000, i);
  }
  for (const auto& [name, bytes] : content) ASSERT_OK(store_->Put(BytesItem(name, bytes)));
  const uint64_t written = store_->stats().io.write_bytes;
  {
    ASSERT_OK_AND_ASSIGN(Transaction tx, store_->Begin());
    tx.ClonePrefix("model/", "step-1/");
    ASSERT_OK_AND_ASSIGN(const CommitResult result, tx.Commit());
    EXPECT_EQ(result.names_changed, 20u);
  }
  EXPECT_EQ(store_->stats().io.write_bytes, written);
  ASSERT_OK(Delete("model/0"));
  for (const auto& [name, bytes] : content) EXPECT_EQ(Get("step-1/" + name.substr(6)), bytes);
  {
    ASSERT_OK_AND_ASSIGN(Transaction tx, store_->Begin());
    tx.RenamePrefix("step-1/", "step-1/old/");  // old and new names overlap
    tx.DeletePrefix("model/");
    ASSERT_OK(tx.Commit());
  }
  Reopen();
  EXPECT_EQ(Names(""), Names("step-1/old/"));
  for (const auto& [name, bytes] : content) EXPECT_EQ(Get("step-1/old/" + name.substr(6)), bytes);
  {
    ASSERT_OK_AND_ASSIGN(Transaction tx, store_->Begin());
    tx.DeletePrefix("");
    ASSERT_OK(tx.Commit());
  }
  EXPECT_EQ(store_->stats().space.live, 0u);
  EXPECT_EQ(store_->stats().objects, 0u);
}

TEST_F(StoreTest, AViewSeesOneCommit) {
  Create();
  Open();
  const std::string old = RandomBytes(5 << 20, 1);  // more blocks than a record has room for sums
  ASSERT_OK(store_->Put(BytesItem("a", old)));
  ASSERT_OK_AND_ASSIGN(auto view, store_->NewView());
  for (int i = 0; i < 10; ++i) ASSERT_OK(store_->Put(BytesItem("a", RandomBytes(2 << 20, i)))) << i;
  ASSERT_OK(Delete("a"));
  ASSERT_OK(store_->Put(BytesItem("b", "new")));
  ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("a", view.get()));
  EXPECT_EQ(ReadAll(object), old);
  EXPECT_FALSE(*store_->Contains("b", view.get()));
  EXPECT_FALSE(*store_->Contains("a"));
}

TEST_F(StoreTest, EphemeralNamesVanishAndCostNoSync) {
  Create();
  Open();
  ASSERT_OK(store_->Put(BytesItem("durable", "d")));
  const StoreStats before = store_->stats();
  const std::string bytes = RandomBytes(3 << 20, 1);
  PutItem item = BytesItem("cache", bytes);
  item.ephemeral = true;
  for (int i = 0; i < 30; ++i) ASSERT_OK(store_->Put(item)) << i;
  EXPECT_EQ(Get("cache"), bytes);
  const StoreStats after = store_->stats();
  EXPECT_EQ(after.syncs, before.syncs);
  EXPECT_EQ(after.index.commits, before.index.commits);
  EXPECT_GT(after.space.scratch, 0u);
  EXPECT_EQ(Names(""), (std::vector<std::string>{"cache", "durable"}));
  item.name = "durable";
  EXPECT_FAILS(store_->Put(item), absl::StatusCode::kAlreadyExists, "durable");
  ASSERT_OK(store_->Put(BytesItem("cache", "durable now")));
  EXPECT_EQ(Get("cache"), "durable now");
  item.name = "gone";
  ASSERT_OK(store_->Put(item));
  Reopen();
  EXPECT_EQ(Names(""), (std::vector<std::string>{"cache", "durable"}));
  EXPECT_EQ(store_->stats().space.scratch, 0u);
}

TEST_F(StoreTest, UnchangedContentIsNotWrittenAgain) {
  Create();
  Open();
  const std::string bytes = RandomBytes(1 << 20, 1);
  PutItem item = BytesItem("a", bytes);
  ASSERT_OK_AND_ASSIGN(const CommitResult first, store_->Put(item));
  const uint64_t written = store_->stats().io.write_bytes;
  item.skip_unchanged = true;
  ASSERT_OK_AND_ASSIGN(const CommitResult second, store_->Put(item));
  EXPECT_EQ(second.unchanged_count, 1u);
  EXPECT_EQ(second.generations, first.generations);
  EXPECT_EQ(store_->stats().io.write_bytes, written);
  item.metadata = {{"step", "2"}};  // metadata is part of the object
  ASSERT_OK_AND_ASSIGN(const CommitResult third, store_->Put(item));
  EXPECT_EQ(third.unchanged_count, 0u);
  ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("a"));
  EXPECT_EQ(object.metadata()->at("step"), "2");
}

TEST_F(StoreTest, AChangeOfOneByteAnywhereIsWritten) {
  Create();
  Open();
  for (const uint64_t blocks : {2, 70}) {  // sums in the record, sums in rows
    std::string bytes = RandomBytes(blocks << 12, blocks);
    const auto put = [&] {
      PutItem item = BytesItem("a", bytes);
      item.block_log2 = 12;
      item.skip_unchanged = true;
      return store_->Put(item);
    };
    ASSERT_OK(put());
    for (const size_t at : {size_t{0}, bytes.size() / 2, bytes.size() - 1}) {
      bytes[at] = static_cast<char>(bytes[at] ^ 1);
      ASSERT_OK_AND_ASSIGN(const CommitResult changed, put());
      EXPECT_EQ(changed.unchanged_count, 0u) << at;
      EXPECT_EQ(Get("a"), bytes);
      ASSERT_OK_AND_ASSIGN(const CommitResult same, put());
      EXPECT_EQ(same.unchanged_count, 1u) << at;
    }
  }
}

TEST_F(StoreTest, ALoneSmallPutNeedsOneSyncAndNoDataFile) {
  Create();
  Open();
  const std::string bytes = RandomBytes(4096, 1), longer = RandomBytes(4097, 2);
  const uint64_t syncs = store_->stats().syncs;  // of data files
  ASSERT_OK(store_->Put({{BytesItem("lone", bytes)}}));
  EXPECT_EQ(store_->stats().syncs, syncs);
  ASSERT_OK(store_->Put({{BytesItem("longer", longer)}}));
  EXPECT_EQ(store_->stats().syncs, syncs + 1);
  ASSERT_OK(store_->Put({{BytesItem("pair/0", bytes), BytesItem("pair/1", bytes)}}));
  EXPECT_EQ(store_->stats().syncs, syncs + 2);
  Reopen();
  const auto placement = [&](const std::string& name) { return store_->Find(name)->record().placement; };
  EXPECT_EQ(placement("lone"), Placement::kInline);
  EXPECT_EQ(placement("longer"), Placement::kExtents);
  EXPECT_EQ(placement("pair/1"), Placement::kExtents);
  EXPECT_EQ(ReadAll(*store_->Find("lone")), bytes);
  EXPECT_EQ(ReadAll(*store_->Find("longer")), longer);
  EXPECT_EQ(ReadAll(*store_->Find("pair/1")), bytes);
}

TEST_F(StoreTest, ABusyStreamOfCommitsWithoutDataIsWitnessed) {
  Create();
  options_.idle_witness_ms = 10;
  Open();
  const std::unique_ptr<Disk> disk = NewLinuxDisk();
  const std::string path = store_->info().files[0].path;
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<File> file, disk->Open(path, {}));
  const auto witnessed = [&] {
    return ReadSlots(*file, store_->info().store_uuid, store_->info().files[0].file_id)->durable_commit_max;
  };
  // Several threads, so that the queue is never idle for 10 ms; yet a witness of one of their commits appears.
  const uint64_t first = store_->info().commit;
  constexpr int kWriters = 3;
  std::atomic<bool> seen = false;
  std::atomic<int> at_work = kWriters;
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; ++i) {
    writers.emplace_back([&, i] {
      const std::string bytes = RandomBytes(100, 1);
      const std::string name = std::to_string(i);
      for (int n = 0; n < 1000 && !seen; ++n) EXPECT_OK(store_->Put({{BytesItem(name, bytes)}}));
      at_work.fetch_sub(1);
    });
  }
  while (at_work == kWriters && !seen) seen = witnessed() > first + 1;
  for (std::thread& writer : writers) writer.join();
  EXPECT_TRUE(seen);
}

TEST_F(StoreTest, FragmentedSpaceStillTakesAnObject) {
  Create();
  Open();
  // Leave holes of 60 KiB, smaller than a checksum block, so that blocks must lie in two extents.
  std::vector<std::string> names;
  for (int i = 0; i < 100; ++i) names.push_back("s" + std::to_string(1000 + i));
  for (const std::string& name : names) ASSERT_OK(store_->Put(BytesItem(name, RandomBytes(60 << 10, 1))));
  const uint64_t free = store_->stats().space.free;
  const std::string filler = RandomBytes(free - (512 << 10), 2);
  ASSERT_OK(store_->Put(BytesItem("filler", filler)));
  for (size_t i = 0; i < names.size(); i += 2) ASSERT_OK(Delete(names[i]));
  const std::string bytes = RandomBytes((2 << 20) + 333, 3);
  ASSERT_OK(store_->Put(BytesItem("split", bytes)));
  ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("split"));
  EXPECT_GT(object.record().columns[0].size(), 4u);
  EXPECT_EQ(Get("split"), bytes);
  Reopen();
  EXPECT_EQ(Get("split"), bytes);
  std::string range(100000, '\0');
  ASSERT_OK_AND_ASSIGN(const Object again, store_->Find("split"));
  const ReadRequest request{.object = &again, .offset = 55555, .to = Span(range)};
  ASSERT_OK(store_->Read({&request, 1}, {}));
  EXPECT_EQ(range, bytes.substr(55555, 100000));
}

TEST_F(StoreTest, SeveralDevicesHoldColumnsOfLargeObjects) {
  devices_ = {path_ + "-d1", path_ + "-d2"};
  Create(uint64_t{128} << 20);
  Open();
  const std::string bytes = RandomBytes((33 << 20) + 4567, 9);
  ASSERT_OK(store_->Put(BytesItem("striped", bytes)));
  ASSERT_OK(store_->Put(BytesItem("whole", bytes.substr(0, 3 << 20))));
  ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("striped"));
  EXPECT_EQ(object.record().columns.size(), 2u);
  EXPECT_EQ(Get("striped"), bytes);
  Reopen();
  EXPECT_EQ(Get("striped"), bytes);
  EXPECT_EQ(Get("whole"), bytes.substr(0, 3 << 20));
  store_.reset();
  std::filesystem::rename(devices_[1], devices_[1] + "-moved");
  const auto missing = Store::Open(path_, {});
  EXPECT_EQ(KindOf(missing.status()), ErrorKind::kDeviceMissing) << missing.status();
  StoreOptions degraded;
  degraded.degraded = true;
  ASSERT_OK_AND_ASSIGN(store_, Store::Open(path_, degraded));
  ASSERT_OK_AND_ASSIGN(const Object lost, store_->Find("striped"));
  std::string out(bytes.size(), '\0');
  const ReadRequest request{.object = &lost, .offset = 0, .to = Span(out)};
  EXPECT_EQ(KindOf(store_->Read({&request, 1}, {})), ErrorKind::kDeviceMissing);
  EXPECT_EQ(KindOf(store_->Put(BytesItem("x", "y")).status()), ErrorKind::kReadOnly);
  StoreOptions found;
  found.devices = {devices_[1] + "-moved"};
  store_.reset();
  ASSERT_OK_AND_ASSIGN(store_, Store::Open(path_, found));
  EXPECT_EQ(Get("striped"), bytes);
  std::filesystem::rename(devices_[1] + "-moved", devices_[1]);
}

TEST_F(StoreTest, ThreadsPutAndReadTogether) {
  Create();
  Open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const std::string name = "t" + std::to_string(t) + "/" + std::to_string(i % 5);
        const std::string bytes = RandomBytes(1000 + 7000 * (i % 7), t * 1000 + i);
        ASSERT_OK(store_->Put(BytesItem(name, bytes)));
        ASSERT_EQ(Get(name), bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const StoreStats stats = store_->stats();
  EXPECT_EQ(stats.names, 40u);
  EXPECT_LE(stats.commit_groups, stats.puts);
}

TEST_F(StoreTest, ReadersBesideTheWriter) {
  Create();
  Open();
  ASSERT_OK(store_->Put(BytesItem("a", "one")));
  StoreOptions options;
  options.mode = StoreOptions::Mode::kReadOnly;
  ASSERT_OK_AND_ASSIGN(auto reader, Store::Open(path_, options));
  EXPECT_EQ(reader->info().mode, "beside-writer");
  EXPECT_TRUE(*reader->Contains("a"));
  ASSERT_OK(store_->Put(BytesItem("b", "two")));
  EXPECT_TRUE(*reader->Contains("b"));  // looks again before it says no
  EXPECT_EQ(KindOf(reader->Put(BytesItem("c", "x")).status()), ErrorKind::kReadOnly);
  ASSERT_OK(store_->Close());
  ASSERT_OK(reader->Close());
  ASSERT_OK_AND_ASSIGN(reader, Store::Open(path_, options));
  EXPECT_EQ(reader->info().mode, "read-only");
  EXPECT_TRUE(*reader->Contains("b"));
}

TEST_F(StoreTest, ASecondWriterIsRefusedAndTheHolderNamed) {
  Create();
  Open();
  const auto second = Store::Open(path_, {});
  EXPECT_EQ(KindOf(second.status()), ErrorKind::kLocked);
  EXPECT_FAILS(second, absl::StatusCode::kFailedPrecondition, "pid=");
}

TEST_F(StoreTest, CreateRefusesWhatIsThere) {
  EXPECT_FAILS(Store::Create(path_, {.capacity = 1000}), absl::StatusCode::kInvalidArgument, "capacity 1000");
  EXPECT_FALSE(std::filesystem::exists(path_));
  Create();
  EXPECT_FAILS(Store::Create(path_, {.capacity = uint64_t{64} << 20}), absl::StatusCode::kAlreadyExists,
               "store already");
  std::filesystem::create_directory(path_ + "-foreign");
  std::filesystem::create_directory(path_ + "-foreign/theirs");
  EXPECT_FAILS(Store::Create(path_ + "-foreign", {.capacity = uint64_t{64} << 20}), absl::StatusCode::kAlreadyExists,
               "holds theirs");
  EXPECT_FAILS(Store::Create(path_ + "/STORE", {.capacity = uint64_t{64} << 20}), absl::StatusCode::kAlreadyExists,
               "not a directory");
  EXPECT_FAILS(Store::Create(path_ + "-big", {.capacity = uint64_t{1} << 41}), absl::StatusCode::kResourceExhausted,
               "bytes left");
  EXPECT_FALSE(std::filesystem::exists(path_ + "-big"));
  EXPECT_FAILS(Store::Open(path_ + "-nothing", {}), absl::StatusCode::kNotFound, "nothing is there");
}

TEST_F(StoreTest, BadItemsAreRefusedByName) {
  Create();
  Open();
  EXPECT_FAILS(store_->Put(BytesItem("", "x")), absl::StatusCode::kInvalidArgument, "");
  EXPECT_FAILS(store_->Put(BytesItem("\xff", "x")), absl::StatusCode::kInvalidArgument, "");
  EXPECT_FAILS(store_->Put(BytesItem(std::string(4097, 'n'), "x")), absl::StatusCode::kInvalidArgument, "4096");
  PutItem tensor = BytesItem("t", "123");
  tensor.kind = ObjectKind::kTensor;
  tensor.dtype = 6;
  tensor.shape = {2};
  EXPECT_FAILS(store_->Put(tensor), absl::StatusCode::kInvalidArgument, "need 8 bytes, 3 were given");
  ASSERT_OK(store_->Put(BytesItem(std::string("nul\0inside", 10), "x")));
  EXPECT_EQ(Get(std::string("nul\0inside", 10)), "x");
  ASSERT_OK(store_->Close());
  ASSERT_OK(store_->Close());
  EXPECT_EQ(KindOf(store_->Find("t").status()), ErrorKind::kClosed);
  EXPECT_EQ(KindOf(store_->Put(BytesItem("a", "b")).status()), ErrorKind::kClosed);
}

TEST_F(StoreTest, DamagedBytesNeverReachTheCaller) {
  Create();
  Open();
  const std::string bytes = RandomBytes(1 << 20, 4);
  ASSERT_OK(store_->Put(BytesItem("victim", bytes)));
  ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("victim"));
  const BlockPosition at = store_->PositionOf(object, 200000);
  FlipByte(at.file, at.offset);
  std::string out(bytes.size(), 'x');
  const ReadRequest request{.object = &object, .offset = 0, .to = Span(out)};
  const absl::Status status = store_->Read({&request, 1}, {});
  const auto corruption = CorruptionOf(status);
  ASSERT_TRUE(corruption.has_value()) << status;
  EXPECT_EQ(corruption->name, "victim");
  EXPECT_EQ(corruption->block, 200000u / 65536);
  EXPECT_EQ(corruption->file, at.file);
  EXPECT_EQ(out.substr(3 * 65536, 65536), std::string(65536, '\0'));
  // Blocks beside the bad one are readable.
  std::string before(65536, '\0');
  const ReadRequest good{.object = &object, .offset = 0, .to = Span(before)};
  ASSERT_OK(store_->Read({&good, 1}, {}));
  EXPECT_EQ(before, bytes.substr(0, 65536));
}

}  // namespace
}  // namespace tensorshelf
