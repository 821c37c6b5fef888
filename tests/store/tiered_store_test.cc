// A store with a memory tier, from the outside: what is read without I/O, one read for many getters, failed and damaged
// reads, leases past close, prefetch. A model with threads checks that no mix of changes and evictions gives wrong
// bytes.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "engine/linux_disk.h"
#include "store/memory_tier.h"
#include "store/stager.h"
#include "store/tiered_reader.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/faulty_disk.h"

namespace tensorshelf {
namespace {

using testing::Call;
using testing::Effect;
using testing::FaultyDisk;
using testing::IsOk;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class TieredStoreTest : public StoreFixture {
 protected:
  TieredStoreTest() : linux_(NewLinuxDisk({})), disk_(linux_.get()) {
    options_.disk = &disk_;
    options_.memory_bytes = 8 * kMiB;
    options_.page_locked = false;
    options_.background_fill = false;
    options_.idle_witness_ms = 1000000;
    options_.notice = [this](const std::string& notice) { notices_.push_back(notice); };
  }
  ~TieredStoreTest() override { store_.reset(); }

  void Start() {
    Create();
    Open();
  }
  void Put(const std::string& name, const std::string& bytes, CacheHint cache = CacheHint::kNone) {
    PutItem item = BytesItem(name, bytes);
    item.cache = cache;
    ASSERT_OK(store_->Put(item));
  }
  absl::StatusOr<std::string> Read(const std::string& name, const ReadOptions& options = {}) {
    auto object = store_->Find(name);
    if (!object.ok()) return object.status();
    std::string bytes(object->size_bytes(), '\0');
    const ReadRequest request{.object = &*object, .offset = 0, .to = Span(bytes)};
    const absl::Status status = store_->Read({&request, 1}, options);
    if (!status.ok()) return status;
    return bytes;
  }
  // Bytes read from the device by `call`.
  template <typename Function>
  uint64_t DeviceBytes(Function call) {
    const uint64_t before = store_->stats().io.read_bytes;
    call();
    return store_->stats().io.read_bytes - before;
  }
  void Damage(const std::string& name) {
    auto object = store_->Find(name);
    ASSERT_OK(object);
    const BlockPosition position = store_->PositionOf(*object, 0);
    FlipByte(position.file, position.offset + 100);
  }

  std::unique_ptr<Disk> linux_;
  FaultyDisk disk_;
  std::vector<std::string> notices_;
};

TEST_F(TieredStoreTest, ASecondReadDoesNoIo) {
  Start();
  const std::string bytes = RandomBytes(300000, 1);
  Put("a", bytes, CacheHint::kOnce);
  EXPECT_GT(DeviceBytes([&] { EXPECT_EQ(Get("a"), bytes); }), 0u);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("a"), bytes); }), 0u);
  EXPECT_EQ(store_->stats().memory.hits, 1u);
}

TEST_F(TieredStoreTest, APutLeavesItsBytesForTheNextRead) {
  Start();
  const std::string first = RandomBytes(300000, 1);
  const std::string second = RandomBytes(300000, 2);
  Put("a", first);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("a"), first); }), 0u);
  Put("a", second, CacheHint::kKeep);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("a"), second); }), 0u);
  const MemoryTierStats stats = store_->stats().memory;
  EXPECT_EQ(stats.objects, 1u);  // the replaced version is gone
  EXPECT_EQ(stats.kept_objects, 1u);
}

TEST_F(TieredStoreTest, NamesComeAndGoOverTheSameBytes) {
  Start();
  const std::string bytes = RandomBytes(200000, 1);
  const std::string other = RandomBytes(200000, 2);
  Put("a", bytes);
  auto change = store_->Begin();
  ASSERT_OK(change);
  change->Clone("a", "b");
  change->Rename("a", "c");
  ASSERT_OK(change->Commit());
  EXPECT_EQ(DeviceBytes([&] {
              EXPECT_EQ(Get("b"), bytes);
              EXPECT_EQ(Get("c"), bytes);
            }),
            0u);
  auto view = store_->NewView();
  ASSERT_OK(view);
  Put("b", other);
  EXPECT_EQ(Get("b"), other);
  EXPECT_EQ(Get("c"), bytes);
  ASSERT_OK(Delete("c"));
  EXPECT_EQ(store_->stats().memory.objects, 1u);
  const auto old = store_->Find("b", view->get());
  ASSERT_OK(old);
  EXPECT_EQ(ReadAll(*old), bytes);
}

TEST_F(TieredStoreTest, WhatIsNotCommittedIsNotKept) {
  Start();
  const std::string bytes = RandomBytes(200000, 1);
  {
    auto transaction = store_->Begin();
    ASSERT_OK(transaction);
    const PutItem item = BytesItem("a", bytes);
    ASSERT_OK(transaction->Put({&item, 1}));
  }
  PutItem refused = BytesItem("a", bytes);
  refused.precondition.kind = Precondition::Kind::kExists;
  EXPECT_FALSE(store_->Put(refused).ok());
  EXPECT_EQ(store_->stats().memory.objects, 0u);
  EXPECT_EQ(store_->stats().memory.held_bytes, 0u);
}

TEST_F(TieredStoreTest, PartsOfWhatIsThereAreServedAndDoNotBringItIn) {
  Start();
  const std::string bytes = RandomBytes(300000, 1);
  Put("a", bytes, CacheHint::kOnce);
  auto object = store_->Find("a");
  ASSERT_OK(object);
  std::string part(1000, '\0');
  const ReadRequest request{.object = &*object, .offset = 123456, .to = Span(part)};
  ASSERT_OK(store_->Read({&request, 1}, {}));
  EXPECT_EQ(part, bytes.substr(123456, 1000));
  EXPECT_EQ(store_->stats().memory.objects, 0u);
  Get("a");
  part.assign(1000, '\0');
  EXPECT_EQ(DeviceBytes([&] { ASSERT_OK(store_->Read({&request, 1}, {})); }), 0u);
  EXPECT_EQ(part, bytes.substr(123456, 1000));
  const ReadRequest beyond{.object = &*object, .offset = bytes.size() - 10, .to = Span(part)};
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Read({&beyond, 1}, {})));
}

TEST_F(TieredStoreTest, ManyGettersOfAMissingObjectDoOneRead) {
  Start();
  constexpr int kGetters = 6;
  const std::string bytes = RandomBytes(64 * 1024, 1);
  Put("a", bytes, CacheHint::kOnce);
  const uint64_t ops_before = store_->stats().io.read_ops;
  // The first read is held back until all others wait for it.
  absl::Notification others_wait;
  std::atomic<bool> armed{true};
  disk_.OnCall([&](Call call, const std::string&) {
    if (call != Call::kSubmit && call != Call::kPRead) return;
    if (armed.exchange(false)) others_wait.WaitForNotification();
  });
  std::vector<std::thread> getters;
  std::atomic<int> right{0};
  for (int i = 0; i < kGetters; ++i) getters.emplace_back([&] { right += Get("a") == bytes; });
  while (store_->stats().memory.joined_reads < kGetters - 1) std::this_thread::yield();
  others_wait.Notify();
  for (std::thread& getter : getters) getter.join();
  disk_.OnCall(nullptr);
  EXPECT_EQ(right, kGetters);
  EXPECT_EQ(store_->stats().io.read_ops - ops_before, 1u);
}

TEST_F(TieredStoreTest, AFailedReadLeavesNothingBehind) {
  Start();
  const std::string bytes = RandomBytes(300000, 1);
  Put("a", bytes, CacheHint::kOnce);
  for (const Call call : {Call::kCompletion, Call::kPRead}) {
    disk_.Arm({.call = call, .nth = 1, .times = 0, .path_part = ".tsd", .error_number = EIO});
  }
  EXPECT_FALSE(Read("a").ok());
  auto object = store_->Find("a");
  ASSERT_OK(object);
  EXPECT_FALSE(store_->Lease({&*object, 1}, {}).ok());
  EXPECT_EQ(store_->stats().memory.objects, 0u);
  EXPECT_EQ(store_->stats().memory.held_bytes, 0u);
  disk_.DisarmAll();
  EXPECT_EQ(Get("a"), bytes);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("a"), bytes); }), 0u);
}

TEST_F(TieredStoreTest, DamagedBytesDoNotComeIn) {
  Start();
  const std::string good = RandomBytes(100000, 1);
  const std::string bad = RandomBytes(300000, 2);
  Put("good", good, CacheHint::kOnce);
  Put("bad", bad, CacheHint::kOnce);
  Damage("bad");
  EXPECT_TRUE(absl::IsDataLoss(Read("bad").status()));
  EXPECT_EQ(store_->stats().memory.objects, 0u);
  EXPECT_EQ(store_->stats().memory.held_bytes, 0u);
  // Who does not want them compared gets them, and the tier still has none of it.
  const auto unverified = Read("bad", {.verify = false});
  ASSERT_OK(unverified);
  EXPECT_NE(*unverified, bad);
  EXPECT_EQ(store_->stats().memory.objects, 0u);
  EXPECT_TRUE(absl::IsDataLoss(Read("bad").status()));
  EXPECT_EQ(*Read("good", {.verify = false}), good);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("good"), good); }), 0u);
}

TEST_F(TieredStoreTest, ABitThatFlipsOnceIsReadAgainOnTheWayIn) {
  Start();
  const std::string bytes = RandomBytes(300000, 1);
  Put("a", bytes, CacheHint::kOnce);
  disk_.Arm({.call = Call::kCompletion, .path_part = ".tsd", .effect = Effect::kFlipBit, .amount = 12345});
  EXPECT_EQ(Get("a"), bytes);
  EXPECT_GT(disk_.fired_count(), 0u);
  EXPECT_EQ(Get("a"), bytes);
}

TEST_F(TieredStoreTest, BytesThatChangedSinceThePutAreNotTaken) {
  ObjectRecord record;
  record.placement = Placement::kExtents;
  record.generation = 1;
  record.logical_bytes = record.stored_bytes = 200000;
  std::string bytes = RandomBytes(200000, 1);
  const std::vector<Sum128> hashes = HashBlocks(std::as_bytes(std::span(bytes)), record.block_log2);
  std::vector<uint64_t> sums;
  for (const Sum128& hash : hashes) sums.push_back(hash.low);
  auto tier = MemoryTier::Create({.capacity = kMiB, .page_locked = false});
  ASSERT_OK(tier);
  MemoryTier::Claim claim = (*tier)->ClaimForPut(record, CacheHint::kNone);
  EXPECT_TRUE(FillFromPut(claim, std::as_bytes(std::span(bytes)), record, sums));
  bytes[150000] ^= 1;
  EXPECT_FALSE(FillFromPut(claim, std::as_bytes(std::span(bytes)), record, sums));
}

TEST_F(TieredStoreTest, WhatIsLargerThanTheTierIsReadPastIt) {
  Start();
  const std::string small = RandomBytes(100000, 1);
  const std::string large = RandomBytes(9 * kMiB, 2);
  Put("small", small);
  Put("large", large, CacheHint::kKeep);
  EXPECT_EQ(Get("large"), large);
  EXPECT_EQ(Get("large"), large);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("small"), small); }), 0u);
  auto object = store_->Find("large");
  ASSERT_OK(object);
  const auto leases = store_->Lease({&*object, 1}, {});
  ASSERT_OK(leases);
  EXPECT_TRUE((*leases)[0].empty());
}

TEST_F(TieredStoreTest, AStoreWithoutATierHasNothingToLease) {
  options_.memory_bytes = 0;
  Start();
  Put("a", RandomBytes(100000, 1));
  auto object = store_->Find("a");
  ASSERT_OK(object);
  const auto leases = store_->Lease({&*object, 1}, {});
  ASSERT_OK(leases);
  EXPECT_TRUE((*leases)[0].empty());
  const std::vector<std::string> names{"a"};
  EXPECT_OK(store_->Prefetch(names, {}));
  EXPECT_OK(store_->WaitForPrefetch());
  EXPECT_EQ(store_->stats().memory.capacity, 0u);
}

TEST_F(TieredStoreTest, ALeaseOutlivesReplacementAndClose) {
  Start();
  const std::string bytes = RandomBytes(300000, 1);
  Put("a", bytes, CacheHint::kOnce);
  Put("tiny", "inline");
  std::vector<Object> objects;
  for (const std::string name : {"a", "tiny"}) {
    auto object = store_->Find(name);
    ASSERT_OK(object);
    objects.push_back(*std::move(object));
  }
  auto leases = store_->Lease(objects, {});
  ASSERT_OK(leases);
  objects.clear();
  EXPECT_TRUE((*leases)[1].empty());
  MemoryLease lease = std::move((*leases)[0]);
  const auto same = [&] { return std::ranges::equal(lease.bytes(), std::as_bytes(std::span(bytes))); };
  EXPECT_TRUE(same());
  EXPECT_EQ(store_->stats().memory.leased_bytes, 300000u);
  EXPECT_GE(store_->stats().memory.oldest_lease_s, 0.0);
  Put("a", RandomBytes(300000, 2));
  for (int i = 0; i < 40; ++i) Put("other" + std::to_string(i), RandomBytes(500000, i), CacheHint::kKeep);
  EXPECT_TRUE(same());
  notices_.clear();
  ASSERT_OK(store_->Close());
  ASSERT_EQ(notices_.size(), 1u);
  EXPECT_NE(notices_[0].find("1 leases on 300000 bytes"), std::string::npos) << notices_[0];
  EXPECT_TRUE(same());
  store_.reset();
  EXPECT_TRUE(same());
}

TEST_F(TieredStoreTest, EphemeralObjectsLeaveWithTheirName) {
  Start();
  const std::string bytes = RandomBytes(100000, 1);
  PutItem item = BytesItem("e", bytes);
  item.ephemeral = true;
  item.cache = CacheHint::kKeep;
  ASSERT_OK(store_->Put(item));
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("e"), bytes); }), 0u);
  ASSERT_OK(store_->Put(item));
  EXPECT_EQ(store_->stats().memory.objects, 1u);
  ASSERT_OK(Delete("e"));
  EXPECT_EQ(store_->stats().memory.objects, 0u);
  Put("e", bytes);
  EXPECT_FALSE(store_->Put(item).ok());  // a durable name now
  EXPECT_EQ(store_->stats().memory.objects, 1u);
}

TEST_F(TieredStoreTest, PrefetchBringsInWhatCanBeReadAndFits) {
  Start();
  std::vector<std::string> names{"missing"};
  std::vector<std::string> values{""};
  for (int i = 0; i < 16; ++i) {
    names.push_back("n" + std::to_string(i));
    values.push_back(RandomBytes(kMiB - 4096, i));
    Put(names.back(), values.back(), CacheHint::kOnce);
  }
  Damage("n1");
  ASSERT_OK(store_->Prefetch(names, {}));
  ASSERT_OK(store_->WaitForPrefetch());
  EXPECT_EQ(store_->stats().memory.prefetch_waiting, 0u);
  // Three quarters of the tier, in steps that may go beyond that.
  EXPECT_GE(store_->stats().memory.objects, 6u);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("n0"), values[1]); }), 0u);
  EXPECT_EQ(DeviceBytes([&] { EXPECT_EQ(Get("n2"), values[3]); }), 0u);
  EXPECT_TRUE(absl::IsDataLoss(Read("n1").status()));
  const std::vector<std::string> bad{""};
  EXPECT_TRUE(absl::IsInvalidArgument(store_->Prefetch(bad, {})));
}

TEST_F(TieredStoreTest, CloseDoesNotWaitForALongPrefetch) {
  Start();
  std::vector<std::string> names;
  for (int i = 0; i < 8; ++i) {
    names.push_back("n" + std::to_string(i));
    Put(names.back(), RandomBytes(kMiB, i), CacheHint::kOnce);
  }
  for (int i = 0; i < 1000; ++i) ASSERT_OK(store_->Prefetch(names, {}));
  ASSERT_OK(store_->Close());
  EXPECT_FALSE(store_->Prefetch(names, {}).ok());
}

TEST_F(TieredStoreTest, ASweepOverTwiceTheTierHitsNearlyHalf) {
  Start();
  constexpr int kObjects = 64;  // 16 MiB
  constexpr int kRounds = 6;
  std::vector<std::string> values;
  for (int i = 0; i < kObjects; ++i) {
    values.push_back(RandomBytes(kMiB / 4, i));
    Put("n" + std::to_string(i), values.back());
  }
  const auto sweep = [&](AccessOrder order) {
    for (int i = 0; i < kObjects; ++i) EXPECT_EQ(*Read("n" + std::to_string(i), {.order = order}), values[i]);
  };
  sweep(AccessOrder::kSweep);
  const uint64_t before = store_->stats().memory.hits;
  for (int round = 0; round < kRounds; ++round) sweep(AccessOrder::kSweep);
  EXPECT_GE(store_->stats().memory.hits - before, kRounds * kObjects * 45 / 100);
}

// Each value begins with its version and goes on with bytes that follow from name and version.
std::string ValueOf(int name, uint64_t version) {
  std::string bytes = RandomBytes(8 + (name * 7919 + version * 104729) % 40000, name * 1000003 + version);
  std::memcpy(bytes.data(), &version, sizeof version);
  return bytes;
}

TEST_F(TieredStoreTest, ThreadsNeverReadAnythingElseThanWhatWasPut) {
  constexpr int kNames = 40;
  constexpr int kSteps = 250;
  options_.memory_bytes = 256 * 1024;  // a fraction of what is stored
  Start();
  std::atomic<uint64_t> next_version{1};
  // What is committed for sure, per name; 0 after a delete that may have happened.
  std::vector<std::atomic<uint64_t>> committed(kNames);
  std::vector<absl::Mutex> writing(kNames);
  std::atomic<int> wrong{0};
  std::atomic<int> read{0};
  const auto check = [&](int name, std::span<const std::byte> bytes, uint64_t at_least) {
    uint64_t version = 0;
    if (bytes.size() >= sizeof version) std::memcpy(&version, bytes.data(), sizeof version);
    const std::string expected = ValueOf(name, version);
    wrong += version < at_least || !std::ranges::equal(bytes, std::as_bytes(std::span(expected)));
    ++read;
  };
  const auto work = [&](int thread) {
    std::mt19937_64 random(thread);
    for (int step = 0; step < kSteps; ++step) {
      const int name = static_cast<int>(random() % kNames);
      const std::string key = "n" + std::to_string(name);
      const auto cache = static_cast<CacheHint>(random() % 3);
      const uint64_t action = random() % 10;
      if (action < 3) {
        absl::MutexLock lock(&writing[name]);
        const uint64_t version = next_version.fetch_add(1);
        const std::string bytes = ValueOf(name, version);
        PutItem item = BytesItem(key, bytes);
        item.cache = cache;
        wrong += !store_->Put(item).ok();
        committed[name] = version;
      } else if (action == 3) {
        absl::MutexLock lock(&writing[name]);
        committed[name] = 0;
        auto transaction = store_->Begin();
        transaction->Delete(key, /*missing_ok=*/true);
        wrong += !transaction->Commit().ok();
      } else {
        const uint64_t at_least = committed[name];
        auto object = store_->Find(key);
        if (!object.ok()) {
          wrong += !absl::IsNotFound(object.status());
          continue;
        }
        const ReadOptions options{.cache = cache, .order = static_cast<AccessOrder>(random() % 2)};
        if (action < 8) {
          std::string bytes(object->size_bytes(), '\0');
          const ReadRequest request{.object = &*object, .offset = 0, .to = Span(bytes)};
          wrong += !store_->Read({&request, 1}, options).ok();
          check(name, std::as_bytes(std::span(bytes)), at_least);
        } else if (auto leases = store_->Lease({&*object, 1}, options); leases.ok()) {
          if (!(*leases)[0].empty()) check(name, (*leases)[0].bytes(), at_least);
        } else {
          ++wrong;
        }
      }
    }
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) threads.emplace_back(work, thread);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(read, 100);
  const MemoryTierStats stats = store_->stats().memory;
  EXPECT_GT(stats.hits, 0u);
  EXPECT_GT(stats.evictions, 0u);
  EXPECT_EQ(stats.leased_bytes, 0u);
}

}  // namespace
}  // namespace tensorshelf
