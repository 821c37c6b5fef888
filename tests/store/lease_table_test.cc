// Goal: counts are exact under any interleaving. Method: by hand, then threads that take and give back leases of few
// generations and must leave nothing behind.

#include "store/lease_table.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

namespace tensorshelf {
namespace {

TEST(LeaseTable, CountsPerGeneration) {
  LeaseTable table;
  EXPECT_FALSE(table.Leased(1));
  table.Acquire(1);
  table.Acquire(1);
  table.Acquire(65);  // the same shard
  EXPECT_EQ(table.Count(1), 2u);
  EXPECT_EQ(table.Count(65), 1u);
  EXPECT_EQ(table.total(), 3u);
  EXPECT_EQ(table.generations(), 2u);
  table.Release(1);
  EXPECT_TRUE(table.Leased(1));
  table.Release(1);
  EXPECT_FALSE(table.Leased(1));
  EXPECT_TRUE(table.Leased(65));
  EXPECT_EQ(table.total(), 1u);
}

TEST(LeaseTable, ALeaseHoldsItsPlaceAndLaterOnes) {
  LeaseTable table;
  table.Acquire(1, 3);
  table.Acquire(1, 5);
  table.Acquire(2, 0);
  EXPECT_FALSE(table.Leased(1, 2)) << "left before any of the two began";
  EXPECT_TRUE(table.Leased(1, 3));
  EXPECT_TRUE(table.Leased(1, 4)) << "the place keeps extents of place 3";
  EXPECT_EQ(table.Count(1), 2u);
  table.Release(1, 3);
  EXPECT_FALSE(table.Leased(1, 4));
  EXPECT_TRUE(table.Leased(1, 5));
  EXPECT_TRUE(table.Leased(1));
  table.Release(1, 5);
  EXPECT_FALSE(table.Leased(1));
  EXPECT_TRUE(table.Leased(2, 0));
}

TEST(LeaseTableDeathTest, AReleaseTooManyAborts) {
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
  LeaseTable table;
  table.Acquire(1);
  table.Release(1);
  EXPECT_DEATH(table.Release(1), "broken invariant");
}

TEST(LeaseTable, ThreadsLeaveNothingBehind) {
  LeaseTable table;
  table.Acquire(3);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&table, t] {
      std::mt19937 random(t);
      std::vector<uint64_t> held;
      for (int i = 0; i < 20000; ++i) {
        if (held.empty() || random() % 2 == 0) {
          held.push_back(random() % 5);
          table.Acquire(held.back());
        } else {
          table.Release(held.back());
          held.pop_back();
        }
      }
      for (const uint64_t generation : held) table.Release(generation);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(table.total(), 1u);
  EXPECT_EQ(table.generations(), 1u);
  EXPECT_EQ(table.Count(3), 1u);
}

}  // namespace
}  // namespace tensorshelf
