// Goal: the cache stays within its bytes, forgets the least recently used, and never takes a row that a commit
// outdated. Method: single steps of a reader and a committer in the orders that matter; threads are in
// index_threads_test.cc.

#include "index/record_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace tensorshelf {
namespace {

using Numbers = CoherentCache<uint64_t, int>;
using Names = CoherentCache<std::string, int>;

TEST(CoherentCacheTest, KeepsWhatWasOffered) {
  Names cache(1 << 20);
  Names::Ticket ticket = 0;
  const std::string key = "a name that is too long to lie inside a string object";
  EXPECT_EQ(cache.Find(key, &ticket), std::nullopt);
  cache.Offer(key, 5, 10, ticket);
  EXPECT_EQ(cache.Find(key, &ticket), 5);
  EXPECT_EQ(cache.counts().hits, 1u);
  EXPECT_EQ(cache.counts().misses, 1u);
  EXPECT_GT(cache.counts().bytes, 10 + key.size());
  cache.Invalidate(key);
  EXPECT_EQ(cache.Find(key, &ticket), std::nullopt);
  EXPECT_EQ(cache.counts().bytes, 0u);
}

TEST(CoherentCacheTest, ARowReadBeforeACommitDoesNotEnterAfterIt) {
  Numbers cache(1 << 20);
  Numbers::Ticket before = 0, after = 0;
  ASSERT_EQ(cache.Find(1, &before), std::nullopt);
  cache.Invalidate(1);
  cache.Offer(1, 10, 0, before);
  ASSERT_EQ(cache.Find(1, &after), std::nullopt);
  cache.Offer(1, 11, 0, after);
  EXPECT_EQ(cache.Find(1, &after), 11);
  // Of two readers, the second finds its row there.
  cache.Offer(1, 11, 0, after);
  EXPECT_EQ(cache.Find(1, &after), 11);

  ASSERT_EQ(cache.Find(2, &before), std::nullopt);
  cache.Clear();
  cache.Offer(2, 20, 0, before);
  EXPECT_EQ(cache.Find(2, &before), std::nullopt);
  EXPECT_EQ(cache.Find(1, &before), std::nullopt);
}

TEST(CoherentCacheTest, StaysWithinItsBytesAndDropsTheLeastRecentlyUsed) {
  constexpr uint64_t kBytesMax = 160 << 10;
  Numbers cache(kBytesMax);
  Numbers::Ticket ticket = 0;
  for (uint64_t key = 0; key < 10000; ++key) {
    if (!cache.Find(key, &ticket)) cache.Offer(key, static_cast<int>(key), 1000, ticket);
    ASSERT_LE(cache.counts().bytes, kBytesMax);
    ASSERT_EQ(cache.Find(0, &ticket), 0) << "after " << key;  // the most recently used but one
  }
  EXPECT_GT(cache.counts().bytes, kBytesMax / 2);
  EXPECT_EQ(cache.Find(1, &ticket), std::nullopt);
  cache.Offer(1, 1, kBytesMax / 2, ticket);  // more than a shard may hold
  EXPECT_EQ(cache.Find(1, &ticket), std::nullopt);
}

TEST(CoherentCacheTest, WithoutBytesKeepsNothing) {
  Numbers cache(0);
  Numbers::Ticket ticket = 0;
  ASSERT_EQ(cache.Find(1, &ticket), std::nullopt);
  cache.Offer(1, 1, 0, ticket);
  EXPECT_EQ(cache.Find(1, &ticket), std::nullopt);
}

TEST(RecordCacheTest, MemoryCountsWhatARecordAllocated) {
  ObjectRecord record;
  const uint64_t empty = MemoryBytes(record);
  EXPECT_GE(empty, sizeof(ObjectRecord));
  record.columns = {{Extent{}, Extent{}}};
  record.shape = {1, 2, 3};
  record.sums = {1};
  record.tlvs = {{.tag = 1, .value = std::string(5000, 'x')}};
  EXPECT_GE(MemoryBytes(record), empty + sizeof(std::vector<Extent>) + 2 * sizeof(Extent) + 4 * 8 + sizeof(Tlv) + 5000);
  const CachedRecord cached{std::make_shared<const ObjectRecord>(record),
                            std::make_shared<const std::string>(std::string(1000, 'p'))};
  EXPECT_GE(MemoryBytes(cached), MemoryBytes(record) + 1000);
}

}  // namespace
}  // namespace tensorshelf
