// Goal: a fault hits exactly the call it names and has exactly its effect, or the tests that stand on it prove nothing.
// Method: one effect a test, on the memory disk.

#include "tests/testing/faulty_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf::testing {
namespace {

constexpr uint32_t kSize = 4096;

class FaultyDiskTest : public ::testing::Test {
 protected:
  FaultyDiskTest() {
    file_ = *disk_.Open("/a", {.writable = true, .create = true});
    queue_ = *disk_.NewQueue(kOpCount);
    for (size_t i = 0; i < kOpCount; ++i) {
      std::memset(memory_ + i * kSize, 'a' + static_cast<int>(i), kSize);
      ops_[i] = {.kind = IoKind::kWrite,
                 .file = file_.get(),
                 .offset = i * kSize,
                 .memory = memory_ + i * kSize,
                 .length = kSize};
      pointers_.push_back(&ops_[i]);
    }
  }

  // Everything that a Reap gives, as pairs of the op's index and its result.
  std::vector<std::pair<size_t, int64_t>> Reap(size_t at_least) {
    std::vector<IoCompletion> completions(kOpCount);
    const int count = queue_->Reap(at_least, completions, -1);
    std::vector<std::pair<size_t, int64_t>> results;
    for (int i = 0; i < count; ++i) {
      results.push_back({static_cast<size_t>(completions[i].op - ops_), completions[i].result});
    }
    return results;
  }
  std::string OnDisk() { return *ReadFile(base_, "/a", 1 << 20); }

  static constexpr size_t kOpCount = 4;
  alignas(4096) static inline std::byte memory_[kOpCount * kSize];
  MemoryDisk base_;
  FaultyDisk disk_{&base_};
  std::unique_ptr<File> file_;
  std::unique_ptr<IoQueue> queue_;
  IoOp ops_[kOpCount];
  std::vector<IoOp*> pointers_;
};

using Results = std::vector<std::pair<size_t, int64_t>>;

TEST_F(FaultyDiskTest, WithoutFaultsItIsTheBaseDiskAndCounts) {
  ASSERT_EQ(queue_->Submit(pointers_), 4);
  EXPECT_EQ(queue_->in_flight(), 4u);
  EXPECT_EQ(Reap(4), (Results{{0, kSize}, {1, kSize}, {2, kSize}, {3, kSize}}));
  EXPECT_EQ(queue_->in_flight(), 0u);
  EXPECT_EQ(OnDisk(), std::string(reinterpret_cast<char*>(memory_), kOpCount * kSize));
  EXPECT_EQ(disk_.count(Call::kSubmit), 1u);
  EXPECT_EQ(disk_.count(Call::kCompletion), 4u);
  EXPECT_EQ(disk_.count(Call::kReap), 1u);
  EXPECT_EQ(disk_.fired_count(), 0u);
}

TEST_F(FaultyDiskTest, EachCallFailsWithItsErrno) {
  const std::vector<std::pair<Call, std::function<absl::Status()>>> calls = {
      {Call::kOpen, [&] { return disk_.Open("/a", {}).status(); }},
      {Call::kSize, [&] { return file_->Size().status(); }},
      {Call::kSync, [&] { return file_->Sync(); }},
      {Call::kAllocate, [&] { return file_->Allocate(10); }},
      {Call::kTruncate, [&] { return file_->Truncate(0); }},
      {Call::kNewQueue, [&] { return disk_.NewQueue(1).status(); }},
      {Call::kStat, [&] { return disk_.Stat("/a").status(); }},
      {Call::kList, [&] { return disk_.List("/").status(); }},
      {Call::kMakeDirectory, [&] { return disk_.MakeDirectory("/d", 0700); }},
      {Call::kRename, [&] { return disk_.Rename("/d", "/e"); }},
      {Call::kRemove, [&] { return disk_.Remove("/e"); }},
      {Call::kSyncDirectory, [&] { return disk_.SyncDirectory("/"); }},
      {Call::kSpace, [&] { return disk_.Space("/").status(); }},
      {Call::kLock, [&] { return disk_.Lock("/LOCK", "x").status(); }},
  };
  for (const auto& [call, make] : calls) {
    disk_.Arm({.call = call, .error_number = ENOSPC});
    EXPECT_FAILS(make(), absl::StatusCode::kResourceExhausted, "injected") << static_cast<int>(call);
    EXPECT_OK(make()) << "hit once, and nothing was done before; call " << static_cast<int>(call);
  }
  EXPECT_EQ(disk_.fired_count(), calls.size());
}

TEST_F(FaultyDiskTest, NthAndTimesAndPathSelect) {
  ASSERT_OK_AND_ASSIGN(const auto other, disk_.Open("/other", {.writable = true, .create = true}));
  disk_.Arm({.call = Call::kSync, .nth = 2, .times = 2, .path_part = "other"});
  EXPECT_OK(file_->Sync());
  EXPECT_OK(other->Sync());
  EXPECT_OK(file_->Sync());
  EXPECT_FALSE(other->Sync().ok());
  EXPECT_FALSE(other->Sync().ok());
  EXPECT_OK(other->Sync());
  disk_.Arm({.call = Call::kSync, .times = 0});
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(other->Sync().ok());
  disk_.DisarmAll();
  EXPECT_OK(other->Sync());
}

TEST_F(FaultyDiskTest, FailAfterDoesItFirst) {
  disk_.Arm({.call = Call::kRename, .effect = Effect::kFailAfter});
  EXPECT_FALSE(disk_.Rename("/a", "/b").ok());
  EXPECT_EQ(base_.Stat("/b")->kind, PathInfo::Kind::kFile);
  disk_.Arm({.call = Call::kCompletion, .effect = Effect::kFailAfter});
  ASSERT_EQ(queue_->Submit({pointers_.data(), 1}), 1);
  EXPECT_EQ(Reap(1), (Results{{0, -EIO}}));
  EXPECT_EQ(*ReadFile(base_, "/b", kSize), std::string(kSize, 'a'));
}

TEST_F(FaultyDiskTest, SubmitFailsOrTakesFewer) {
  disk_.Arm({.call = Call::kSubmit, .nth = 1, .error_number = EAGAIN});
  disk_.Arm({.call = Call::kSubmit, .nth = 2, .effect = Effect::kShorten, .amount = 3});
  EXPECT_EQ(queue_->Submit(pointers_), -EAGAIN);
  EXPECT_EQ(queue_->in_flight(), 0u);
  EXPECT_EQ(queue_->Submit(pointers_), 3);
  EXPECT_EQ(queue_->Submit({pointers_.data() + 3, 1}), 1);
  disk_.Arm({.call = Call::kReap, .error_number = EINTR});
  std::vector<IoCompletion> completions(kOpCount);
  EXPECT_EQ(queue_->Reap(1, completions, -1), -EINTR);
  EXPECT_EQ(Reap(4).size(), 4u);
}

TEST_F(FaultyDiskTest, CompletionsFailComeShortOrLie) {
  disk_.Arm({.call = Call::kCompletion, .nth = 1, .error_number = ENOSPC});
  disk_.Arm({.call = Call::kCompletion, .nth = 2, .effect = Effect::kShorten, .amount = kSize - 1});
  disk_.Arm({.call = Call::kCompletion, .nth = 3, .effect = Effect::kLose});
  ASSERT_EQ(queue_->Submit(pointers_), 4);
  std::set<std::pair<size_t, int64_t>> results;
  for (const auto& result : Reap(4)) results.insert(result);
  EXPECT_EQ(results, (std::set<std::pair<size_t, int64_t>>{{0, -ENOSPC}, {1, 0}, {2, kSize}, {3, kSize}}));
  const std::string bytes = OnDisk();
  EXPECT_EQ(bytes.substr(0, 3 * kSize), std::string(3 * kSize, '\0')) << "none of the three reached the disk";
  EXPECT_EQ(bytes.substr(3 * kSize), std::string(kSize, 'd'));
}

TEST_F(FaultyDiskTest, ReadsComeWithAFlippedBit) {
  ASSERT_EQ(queue_->Submit(pointers_), 4);
  ASSERT_EQ(Reap(4).size(), 4u);
  ops_[0].kind = IoKind::kRead;
  disk_.Arm({.call = Call::kCompletion, .effect = Effect::kFlipBit, .amount = 8 * 5 + 1});
  ASSERT_EQ(queue_->Submit({pointers_.data(), 1}), 1);
  ASSERT_EQ(Reap(1), (Results{{0, kSize}}));
  std::string expected(kSize, 'a');
  EXPECT_NE(std::memcmp(memory_, expected.data(), kSize), 0);
  expected[5] ^= 2;
  EXPECT_EQ(std::memcmp(memory_, expected.data(), kSize), 0);
  EXPECT_EQ(OnDisk().substr(0, kSize), std::string(kSize, 'a')) << "the disk is whole";

  disk_.Arm({.call = Call::kPRead, .effect = Effect::kFlipBit, .amount = 0});
  std::string text(2, '?');
  ASSERT_OK(ReadExactly(*file_, 0, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, "`a");
}

TEST_F(FaultyDiskTest, TransfersGoElsewhere) {
  disk_.Arm({.call = Call::kCompletion, .nth = 2, .effect = Effect::kMisdirect, .amount = 2 * kSize});
  ASSERT_EQ(queue_->Submit({pointers_.data(), 2}), 2);
  EXPECT_EQ(Reap(2).size(), 2u);
  EXPECT_EQ(OnDisk(), std::string(kSize, 'a') + std::string(2 * kSize, '\0') + std::string(kSize, 'b'));
  disk_.Arm({.call = Call::kPRead, .effect = Effect::kMisdirect, .amount = 3 * kSize});
  std::string text(2, '?');
  ASSERT_OK(ReadExactly(*file_, 0, std::as_writable_bytes(std::span(text))));
  EXPECT_EQ(text, "bb");
}

TEST_F(FaultyDiskTest, ReadsAreStale) {
  ASSERT_EQ(queue_->Submit(pointers_), 4);
  ASSERT_EQ(Reap(4).size(), 4u);
  ASSERT_OK(disk_.RememberForStaleReads("/a"));
  std::memset(memory_, 'x', kSize);
  ASSERT_EQ(queue_->Submit({pointers_.data(), 1}), 1);
  ASSERT_EQ(Reap(1).size(), 1u);
  ops_[0].kind = IoKind::kRead;
  disk_.Arm({.call = Call::kCompletion, .effect = Effect::kStale});
  for (const char expected : {'a', 'x'}) {  // once, then as it is
    ASSERT_EQ(queue_->Submit({pointers_.data(), 1}), 1);
    ASSERT_EQ(Reap(1), (Results{{0, kSize}}));
    EXPECT_EQ(std::string(reinterpret_cast<char*>(memory_), kSize), std::string(kSize, expected));
  }
}

TEST_F(FaultyDiskTest, ABadPlaceFailsAndTheRestWorks) {
  ASSERT_EQ(queue_->Submit(pointers_), 4);
  ASSERT_EQ(Reap(4).size(), 4u);
  disk_.Arm({.call = Call::kPRead, .times = 0, .offset_begin = kSize + 10, .offset_end = kSize + 11});
  std::string text(kSize, '?');
  for (int i = 0; i < 3; ++i) {
    EXPECT_OK(ReadExactly(*file_, 0, std::as_writable_bytes(std::span(text))));
    EXPECT_FALSE(ReadExactly(*file_, kSize, std::as_writable_bytes(std::span(text))).ok());
    EXPECT_OK(ReadExactly(*file_, 2 * kSize, std::as_writable_bytes(std::span(text))));
  }
}

TEST_F(FaultyDiskTest, ADeviceVanishes) {
  ASSERT_OK_AND_ASSIGN(const auto other, disk_.Open("/other", {.writable = true, .create = true}));
  disk_.Vanish("/a");
  EXPECT_FALSE(file_->Sync().ok());
  EXPECT_FALSE(disk_.Open("/a", {}).ok());
  ASSERT_EQ(queue_->Submit({pointers_.data(), 1}), 1);
  EXPECT_EQ(Reap(1), (Results{{0, -ENODEV}}));
  EXPECT_OK(other->Sync());
}

TEST_F(FaultyDiskTest, ALostSyncMakesNothingDurable) {
  ASSERT_OK(disk_.SyncDirectory("/"));
  ASSERT_EQ(queue_->Submit({pointers_.data(), 1}), 1);
  ASSERT_EQ(Reap(1).size(), 1u);
  disk_.Arm({.call = Call::kSync, .effect = Effect::kLose});
  EXPECT_OK(file_->Sync());
  EXPECT_EQ(base_.AfterCrash(CrashPolicy::DropUnsynced())->Stat("/a")->size, 0u);
  EXPECT_OK(file_->Sync());
  EXPECT_EQ(base_.AfterCrash(CrashPolicy::DropUnsynced())->Stat("/a")->size, kSize);
}

TEST_F(FaultyDiskTest, ADelayedCompletionLetsOthersPass) {
  disk_.Arm({.call = Call::kCompletion, .nth = 1, .effect = Effect::kDelay, .amount = 2});
  ASSERT_EQ(queue_->Submit(pointers_), 4);
  EXPECT_EQ(Reap(4), (Results{{1, kSize}, {2, kSize}, {0, kSize}, {3, kSize}}));
  disk_.Arm({.call = Call::kCompletion, .nth = 1, .effect = Effect::kDelay, .amount = 100});
  ASSERT_EQ(queue_->Submit({pointers_.data(), 1}), 1);
  EXPECT_EQ(Reap(1), (Results{{0, kSize}})) << "not for ever: nothing else is in flight";
}

TEST_F(FaultyDiskTest, ReorderedCompletionsComeOneByOneInManyOrders) {
  std::set<std::vector<size_t>> orders;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    disk_.ReorderCompletions(seed);
    ASSERT_EQ(queue_->Submit(pointers_), 4);
    std::vector<size_t> order;
    while (queue_->in_flight() > 0) {
      const auto results = Reap(1);
      ASSERT_EQ(results.size(), 1u);
      order.push_back(results[0].first);
    }
    EXPECT_EQ(std::set<size_t>(order.begin(), order.end()).size(), 4u);
    orders.insert(order);
  }
  EXPECT_GT(orders.size(), 10u);
}

TEST_F(FaultyDiskTest, OnCallSeesTheDiskBeforeEachCall) {
  std::vector<uint64_t> sizes;
  disk_.OnCall([&](Call call, const std::string& path) {
    if (call == Call::kCompletion && path == "/a") sizes.push_back(base_.Stat("/a")->size);
  });
  ASSERT_EQ(queue_->Submit(pointers_), 4);
  EXPECT_EQ(sizes, (std::vector<uint64_t>{0, kSize, 2 * kSize, 3 * kSize}));
  disk_.OnCall(nullptr);
  ASSERT_EQ(Reap(4).size(), 4u);
}

}  // namespace
}  // namespace tensorshelf::testing
