// The memory tier by itself: what is found, what is evicted, what leases hold, who reads when many miss. Contents
// follow from the generation, so every byte that comes out is checked, also while threads put, read, lease, drop and
// evict.

#include "store/memory_tier.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

using Claim = MemoryTier::Claim;
using Role = MemoryTier::Claim::Role;

constexpr uint64_t kKiB = 1024;

ObjectRecord RecordOf(uint64_t generation, uint64_t size) {
  ObjectRecord record;
  record.generation = generation;
  record.placement = Placement::kExtents;
  record.logical_bytes = record.stored_bytes = size;
  std::memcpy(record.fingerprint.data(), &generation, sizeof generation);
  return record;
}

std::byte ByteOf(uint64_t generation) { return static_cast<std::byte>(generation * 37 + 11); }

void Fill(std::span<std::byte> bytes, uint64_t generation) {
  std::memset(bytes.data(), static_cast<int>(ByteOf(generation)), bytes.size());
}

bool IsOf(std::span<const std::byte> bytes, uint64_t generation) {
  return std::ranges::all_of(bytes, [&](std::byte byte) { return byte == ByteOf(generation); });
}

class MemoryTierTest : public ::testing::Test {
 protected:
  void Create(uint64_t capacity, std::function<void(const std::string&)> notice = nullptr) {
    auto created =
        MemoryTier::Create({.capacity = capacity, .page_locked = false, .hooks = {.notice = std::move(notice)}});
    ASSERT_OK(created);
    tier_ = *std::move(created);
  }
  Claim ClaimOne(const ObjectRecord& record, const MemoryTier::Use& use = {}, bool whole = true) {
    const MemoryTier::Wish wish{.record = &record, .whole = whole};
    return std::move(tier_->ClaimAll({&wish, 1}, use)[0]);
  }
  // As a reader does. True: it was a hit.
  bool ReadOne(const ObjectRecord& record, const MemoryTier::Use& use = {}) {
    Claim claim = ClaimOne(record, use);
    if (claim.role() == Role::kFill) {
      Fill(claim.entry()->bytes(), record.generation);
      tier_->Publish(claim);
    }
    EXPECT_TRUE(claim.entry() == nullptr || IsOf(claim.entry()->bytes(), record.generation));
    return claim.role() == Role::kHit;
  }

  std::unique_ptr<MemoryTier> tier_;
};

TEST_F(MemoryTierTest, WhatWasFilledIsFound) {
  Create(64 * kKiB);
  const ObjectRecord record = RecordOf(1, 5000);
  EXPECT_FALSE(ReadOne(record));
  EXPECT_TRUE(ReadOne(record));
  const MemoryTierStats stats = tier_->stats();
  EXPECT_EQ(stats.hits, 1u);
  EXPECT_EQ(stats.misses, 1u);
  EXPECT_EQ(stats.hit_bytes, 5000u);
  EXPECT_EQ(stats.objects, 1u);
  EXPECT_EQ(stats.held_bytes, 8 * kKiB);
  EXPECT_EQ(stats.capacity, 64 * kKiB);
}

TEST_F(MemoryTierTest, AnotherObjectOfTheSameGenerationIsNotFound) {
  Create(64 * kKiB);
  ReadOne(RecordOf(1, 5000));
  ObjectRecord other = RecordOf(1, 5000);
  other.fingerprint[15] ^= 1;
  EXPECT_NE(ClaimOne(other).role(), Role::kHit);
  EXPECT_NE(ClaimOne(RecordOf(1, 5001)).role(), Role::kHit);
}

TEST_F(MemoryTierTest, AFillThatFailsLeavesNothing) {
  Create(64 * kKiB);
  const ObjectRecord record = RecordOf(1, 5000);
  {
    const Claim fill = ClaimOne(record);
    ASSERT_EQ(fill.role(), Role::kFill);
    EXPECT_EQ(tier_->stats().held_bytes, 8 * kKiB);
  }
  EXPECT_EQ(tier_->stats().held_bytes, 0u);
  EXPECT_EQ(tier_->stats().objects, 0u);
  EXPECT_EQ(ClaimOne(record).role(), Role::kFill);
}

TEST_F(MemoryTierTest, JoinersGetWhatTheFirstOneReads) {
  Create(64 * kKiB);
  const ObjectRecord record = RecordOf(1, 5000);
  Claim fill = ClaimOne(record);
  ASSERT_EQ(fill.role(), Role::kFill);
  std::vector<std::thread> joiners;
  std::atomic<int> right{0};
  for (int i = 0; i < 4; ++i) {
    Claim join = ClaimOne(record);
    ASSERT_EQ(join.role(), Role::kJoin);
    joiners.emplace_back([&, join = std::move(join)] {
      const auto entry = tier_->Join(join);
      right += entry != nullptr && IsOf(entry->bytes(), 1);
    });
  }
  Fill(fill.entry()->bytes(), 1);
  tier_->Publish(fill);
  for (std::thread& joiner : joiners) joiner.join();
  EXPECT_EQ(right, 4);
  EXPECT_EQ(tier_->stats().joined_reads, 4u);
}

TEST_F(MemoryTierTest, JoinersOfAFillThatFailsReadThemselves) {
  Create(64 * kKiB);
  const ObjectRecord record = RecordOf(1, 5000);
  Claim fill = ClaimOne(record);
  const Claim join = ClaimOne(record);
  ASSERT_EQ(join.role(), Role::kJoin);
  std::thread joiner([&] { EXPECT_EQ(tier_->Join(join), nullptr); });
  fill = Claim();
  joiner.join();
}

TEST_F(MemoryTierTest, AnObjectThatIsWishedTwiceIsFilledOnce) {
  Create(64 * kKiB);
  const ObjectRecord record = RecordOf(1, 5000);
  const std::vector<MemoryTier::Wish> wishes(2, MemoryTier::Wish{.record = &record});
  std::vector<Claim> claims = tier_->ClaimAll(wishes, {});
  ASSERT_EQ(claims[0].role(), Role::kFill);
  ASSERT_EQ(claims[1].role(), Role::kJoin);
  Fill(claims[0].entry()->bytes(), 1);
  tier_->Publish(claims[0]);
  EXPECT_TRUE(IsOf(tier_->Join(claims[1])->bytes(), 1));
}

TEST_F(MemoryTierTest, ADropDuringAFillKeepsItOut) {
  Create(64 * kKiB);
  const ObjectRecord record = RecordOf(1, 5000);
  Claim fill = ClaimOne(record);
  const Claim join = ClaimOne(record);
  tier_->Drop(1);
  Fill(fill.entry()->bytes(), 1);
  tier_->Publish(fill);
  EXPECT_TRUE(IsOf(tier_->Join(join)->bytes(), 1));  // who found it before the drop may have it
  EXPECT_EQ(tier_->stats().objects, 0u);
}

TEST_F(MemoryTierTest, PartsAndOnceReadsBringNothingIn) {
  Create(64 * kKiB);
  const ObjectRecord record = RecordOf(1, 5000);
  EXPECT_EQ(ClaimOne(record, {}, /*whole=*/false).role(), Role::kBypass);
  EXPECT_EQ(ClaimOne(record, {.cache = CacheHint::kOnce}).role(), Role::kBypass);
  ReadOne(record);
  EXPECT_EQ(ClaimOne(record, {}, /*whole=*/false).role(), Role::kHit);
}

TEST_F(MemoryTierTest, WhatIsLargerThanTheTierGoesPastIt) {
  Create(64 * kKiB);
  for (uint64_t generation = 1; generation <= 4; ++generation) ReadOne(RecordOf(generation, 16 * kKiB));
  EXPECT_EQ(ClaimOne(RecordOf(9, 65 * kKiB), {.cache = CacheHint::kKeep}).role(), Role::kBypass);
  EXPECT_EQ(ClaimOne(RecordOf(10, 0)).role(), Role::kBypass);
  EXPECT_EQ(tier_->stats().objects, 4u);  // and pushes nothing out
  EXPECT_EQ(tier_->stats().rejected, 2u);
}

TEST_F(MemoryTierTest, PutsWithoutAHintTakeFreeRoomOnly) {
  Create(64 * kKiB);
  for (uint64_t generation = 1; generation <= 4; ++generation) {
    Claim claim = tier_->ClaimForPut(RecordOf(generation, 16 * kKiB), CacheHint::kNone);
    ASSERT_EQ(claim.role(), Role::kFill);
    // Not before it is published.
    EXPECT_EQ(ClaimOne(RecordOf(generation, 16 * kKiB), {}, /*whole=*/false).role(), Role::kBypass);
    Fill(claim.entry()->bytes(), generation);
    tier_->Publish(claim);
  }
  EXPECT_EQ(tier_->ClaimForPut(RecordOf(5, 16 * kKiB), CacheHint::kNone).role(), Role::kBypass);
  EXPECT_EQ(tier_->ClaimForPut(RecordOf(5, 16 * kKiB), CacheHint::kOnce).role(), Role::kBypass);
  EXPECT_EQ(tier_->ClaimForPut(RecordOf(5, 16 * kKiB), CacheHint::kKeep).role(), Role::kFill);
  EXPECT_EQ(tier_->stats().evictions, 1u);
}

TEST_F(MemoryTierTest, LeasedBytesStayThroughEvictionDropAndTheTiersEnd) {
  Create(64 * kKiB);
  const ObjectRecord leased = RecordOf(1, 16 * kKiB);
  ReadOne(leased);
  MemoryLease lease = tier_->Grant(ClaimOne(leased).entry());
  EXPECT_EQ(tier_->stats().leased_bytes, 16 * kKiB);
  EXPECT_EQ(tier_->stats().leases, 1u);
  for (uint64_t generation = 2; generation < 100; ++generation) {
    ReadOne(RecordOf(generation, 16 * kKiB), {.cache = generation % 2 == 0 ? CacheHint::kKeep : CacheHint::kNone});
    ASSERT_TRUE(IsOf(lease.bytes(), 1));
  }
  EXPECT_GT(tier_->stats().evictions, 0u);
  EXPECT_TRUE(ReadOne(leased));
  tier_->Drop(1);
  EXPECT_FALSE(ReadOne(leased));
  tier_->Drop(1);
  EXPECT_EQ(tier_->Retire().leased_bytes, 16 * kKiB);
  tier_.reset();
  EXPECT_TRUE(IsOf(lease.bytes(), 1));
}

TEST_F(MemoryTierTest, WhenEverythingIsLeasedNewcomersGoPast) {
  Create(64 * kKiB);
  std::vector<MemoryLease> leases;
  for (uint64_t generation = 1; generation <= 4; ++generation) {
    ReadOne(RecordOf(generation, 16 * kKiB));
    leases.push_back(tier_->Grant(ClaimOne(RecordOf(generation, 16 * kKiB)).entry()));
  }
  EXPECT_EQ(ClaimOne(RecordOf(5, 16 * kKiB), {.cache = CacheHint::kKeep}).role(), Role::kBypass);
  EXPECT_EQ(tier_->stats().evictions, 0u);
  leases.clear();
  EXPECT_EQ(tier_->stats().leased_bytes, 0u);
  EXPECT_EQ(ClaimOne(RecordOf(5, 16 * kKiB), {.cache = CacheHint::kKeep}).role(), Role::kFill);
}

TEST_F(MemoryTierTest, OneManyObjectReadDoesNotFlushTheTier) {
  Create(1024 * kKiB);
  for (int round = 0; round < 3; ++round) {
    for (uint64_t generation = 1; generation <= 80; ++generation) {
      ReadOne(RecordOf(generation, 8 * kKiB));
      ReadOne(RecordOf(generation, 8 * kKiB));
    }
  }
  for (uint64_t generation = 1000; generation < 1050; ++generation) ReadOne(RecordOf(generation, 8 * kKiB));
  std::vector<ObjectRecord> records;
  std::vector<MemoryTier::Wish> wishes;
  for (uint64_t generation = 2000; generation < 2500; ++generation) records.push_back(RecordOf(generation, 8 * kKiB));
  for (const ObjectRecord& record : records) wishes.push_back({.record = &record});
  std::vector<Claim> claims = tier_->ClaimAll(wishes, {});
  EXPECT_GT(std::ranges::count(claims, Role::kBypass, &Claim::role), 300);
  claims.clear();
  int held = 0;
  for (uint64_t generation = 1; generation <= 80; ++generation) held += ReadOne(RecordOf(generation, 8 * kKiB));
  EXPECT_GE(held, 75);
}

TEST_F(MemoryTierTest, ASweepOverTwiceTheTierHitsNearlyHalf) {
  Create(1024 * kKiB);
  int hits = 0;
  for (int round = 0; round < 6; ++round) {
    for (uint64_t generation = 1; generation <= 128; ++generation) {
      hits += ReadOne(RecordOf(generation, 16 * kKiB), {.order = AccessOrder::kSweep}) && round > 0;
    }
  }
  EXPECT_GE(hits, 5 * 128 * 45 / 100);
}

TEST_F(MemoryTierTest, RetiringGivesTheMemoryBackAndTakesNoMore) {
  Create(64 * kKiB);
  ReadOne(RecordOf(1, 16 * kKiB));
  EXPECT_EQ(tier_->Retire().held_bytes, 0u);
  EXPECT_EQ(ClaimOne(RecordOf(2, 16 * kKiB)).role(), Role::kBypass);
}

TEST_F(MemoryTierTest, WhatCannotBeLockedOrHugeIsSaid) {
  std::vector<std::string> notices;
  Create(64 * kKiB, [&](const std::string& notice) { notices.push_back(notice); });
  ASSERT_EQ(notices.size(), 1u);  // it is below 2 MiB, so not on huge pages
  EXPECT_NE(notices[0].find("huge pages"), std::string::npos);
  EXPECT_FALSE(tier_->stats().huge_pages);
  EXPECT_FALSE(tier_->stats().page_locked);
}

// Threads read, lease, put and drop a few hundred generations through a tier that holds a tenth of them.
TEST_F(MemoryTierTest, ThreadsNeverSeeBytesOfAnotherObject) {
  constexpr int kThreads = 4;
  constexpr int kSteps = 3000;
  Create(256 * kKiB);
  const auto size_of = [](uint64_t generation) { return 1 + generation * 2654435761u % (12 * kKiB); };
  std::atomic<int> wrong{0};
  std::atomic<int> finished{0};
  const auto check = [&](std::span<const std::byte> bytes, uint64_t generation) { wrong += !IsOf(bytes, generation); };
  const auto work = [&](int thread) {
    std::mt19937_64 random(thread);
    std::vector<std::pair<uint64_t, MemoryLease>> leases;
    for (int step = 0; step < kSteps; ++step) {
      const MemoryTier::Use use{.cache = static_cast<CacheHint>(random() % 8 < 6 ? 0 : random() % 3),
                                .order = static_cast<AccessOrder>(random() % 4 == 0),
                                .ahead = random() % 8 == 0};
      std::vector<ObjectRecord> records;
      for (size_t i = 0; i < 1 + random() % 4; ++i) {
        const uint64_t generation = 1 + random() % 400;
        records.push_back(RecordOf(generation, size_of(generation)));
      }
      if (random() % 16 == 0) tier_->Drop(records[0].generation);
      if (random() % 8 == 0) {
        Claim claim = tier_->ClaimForPut(records[0], use.cache);
        if (claim.role() == Role::kFill) {
          Fill(claim.entry()->bytes(), records[0].generation);
          if (random() % 4 != 0) tier_->Publish(claim);
        }
        continue;
      }
      std::vector<MemoryTier::Wish> wishes;
      for (const ObjectRecord& record : records) wishes.push_back({.record = &record});
      std::vector<Claim> claims = tier_->ClaimAll(wishes, use);
      for (size_t i = 0; i < claims.size(); ++i) {
        if (claims[i].role() == Role::kFill) {
          Fill(claims[i].entry()->bytes(), records[i].generation);
          if (random() % 8 == 0) {
            claims[i] = Claim();  // its read failed
          } else {
            tier_->Publish(claims[i]);
          }
        }
        if (claims[i].entry() == nullptr) continue;
        check(claims[i].entry()->bytes(), records[i].generation);
        if (random() % 8 == 0) leases.emplace_back(records[i].generation, tier_->Grant(claims[i].entry()));
      }
      for (size_t i = 0; i < claims.size(); ++i) {
        if (claims[i].role() != Role::kJoin) continue;
        if (const auto entry = tier_->Join(claims[i])) check(entry->bytes(), records[i].generation);
      }
      while (leases.size() > 4) {
        check(leases.front().second.bytes(), leases.front().first);
        leases.erase(leases.begin());
      }
    }
    for (const auto& [generation, lease] : leases) check(lease.bytes(), generation);
    ++finished;
  };
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) threads.emplace_back(work, thread);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(finished, kThreads);
  EXPECT_EQ(wrong, 0);
  const MemoryTierStats stats = tier_->stats();
  EXPECT_LE(stats.held_bytes, stats.capacity);
  EXPECT_EQ(stats.leased_bytes, 0u);
  EXPECT_EQ(stats.leases, 0u);
  EXPECT_GT(stats.hits, 0u);
  EXPECT_GT(stats.evictions, 0u);
  EXPECT_EQ(tier_->Retire().held_bytes, 0u);  // nothing was forgotten
}

}  // namespace
}  // namespace tensorshelf
