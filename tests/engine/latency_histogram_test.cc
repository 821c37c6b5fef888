// Goal: a latency is counted in the bucket whose documented bounds hold it, and quantiles are near the truth.
// Method: both sides of every bound; quantiles of known distributions beside the sorted values.

#include "engine/foundation/latency_histogram.h"

#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <vector>

namespace tensorshelf {
namespace {

TEST(LatencyHistogram, BoundsAreThoseOfTheTable) {
  EXPECT_EQ(LatencyBucketEnd(0), 256u);
  EXPECT_EQ(LatencyBucketEnd(1), 384u);
  EXPECT_EQ(LatencyBucketEnd(2), 512u);
  EXPECT_EQ(LatencyBucketEnd(3), 768u);
  EXPECT_EQ(LatencyBucketEnd(62), uint64_t{1} << 39);
  EXPECT_EQ(LatencyBucketEnd(63), UINT64_MAX);
  EXPECT_EQ(LatencyBucket(0), 0u);
  EXPECT_EQ(LatencyBucket(UINT64_MAX), 63u);
  for (size_t bucket = 0; bucket + 1 < kLatencyBuckets; ++bucket) {
    EXPECT_EQ(LatencyBucket(LatencyBucketEnd(bucket) - 1), bucket);
    EXPECT_EQ(LatencyBucket(LatencyBucketEnd(bucket)), bucket + 1);
  }
}

TEST(LatencyHistogram, NothingIsZero) {
  const LatencyCounts counts = LatencyHistogram().Read();
  EXPECT_EQ(counts.count(), 0u);
  EXPECT_EQ(counts.QuantileNs(0.5), 0);
  EXPECT_EQ(counts.mean_ns(), 0);
}

TEST(LatencyHistogram, OneValueIsEveryQuantileToWithinItsBucket) {
  LatencyHistogram histogram;
  histogram.Record(70'000);
  const LatencyCounts counts = histogram.Read();
  EXPECT_EQ(counts.count(), 1u);
  EXPECT_EQ(counts.sum_ns, 70'000u);
  EXPECT_EQ(counts.max_ns, 70'000u);
  for (const double quantile : {0.01, 0.5, 0.99, 1.0}) {
    EXPECT_GE(counts.QuantileNs(quantile), 65'536) << quantile;
    EXPECT_LE(counts.QuantileNs(quantile), 70'000) << quantile;
  }
}

TEST(LatencyHistogram, QuantilesAreWithinAHalfOfTheTruth) {
  std::mt19937_64 random(20260501);
  std::lognormal_distribution<double> spread(11, 1.5);
  LatencyHistogram histogram;
  std::vector<uint64_t> all;
  for (int i = 0; i < 20'000; ++i) {
    all.push_back(static_cast<uint64_t>(spread(random)) + 256);
    histogram.Record(all.back());
  }
  std::sort(all.begin(), all.end());
  const LatencyCounts counts = histogram.Read();
  EXPECT_EQ(counts.count(), all.size());
  EXPECT_EQ(counts.max_ns, all.back());
  for (const double quantile : {0.1, 0.5, 0.9, 0.99, 0.999}) {
    const auto truth = static_cast<double>(all[static_cast<size_t>(quantile * static_cast<double>(all.size()))]);
    EXPECT_GT(counts.QuantileNs(quantile), truth / 1.5) << quantile;
    EXPECT_LT(counts.QuantileNs(quantile), truth * 1.5) << quantile;
  }
  EXPECT_EQ(counts.QuantileNs(1), static_cast<double>(all.back()));
}

TEST(LatencyHistogram, SinceLeavesWhatCameBetween) {
  LatencyHistogram histogram;
  histogram.Record(uint64_t{1} << 30);
  const LatencyCounts before = histogram.Read();
  histogram.Record(1000);
  histogram.Record(1010);
  const LatencyCounts since = histogram.Read().Since(before);
  EXPECT_EQ(since.count(), 2u);
  EXPECT_EQ(since.sum_ns, 2010u);
  EXPECT_EQ(since.max_ns, 1024u) << "the end of their bucket: which was the largest is not known";
  EXPECT_EQ(before.Since(histogram.Read()).count(), 0u) << "counts of another histogram never wrap";
}

TEST(LatencyHistogram, NoThreadsCountIsLost) {
  constexpr int kThreads = 4, kEach = 50'000;
  LatencyHistogram histogram;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int j = 0; j < kEach; ++j) histogram.Record(static_cast<uint64_t>(i * kEach + j));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const LatencyCounts counts = histogram.Read();
  EXPECT_EQ(counts.count(), uint64_t{kThreads} * kEach);
  EXPECT_EQ(counts.max_ns, uint64_t{kThreads} * kEach - 1);
  EXPECT_EQ(counts.sum_ns, (uint64_t{kThreads} * kEach - 1) * (uint64_t{kThreads} * kEach) / 2);
}

}  // namespace
}  // namespace tensorshelf
