#include "engine/foundation/latency_histogram.h"

#include <numeric>

namespace tensorshelf {

uint64_t LatencyCounts::count() const { return std::accumulate(buckets.begin(), buckets.end(), uint64_t{0}); }

double LatencyCounts::mean_ns() const {
  const uint64_t all = count();
  return all == 0 ? 0 : static_cast<double>(sum_ns) / static_cast<double>(all);
}

double LatencyCounts::QuantileNs(double quantile) const {
  const auto wanted = static_cast<double>(count()) * std::clamp(quantile, 0.0, 1.0);
  if (wanted <= 0) return 0;
  double below = 0;
  for (size_t i = 0; i < kLatencyBuckets; ++i) {
    const auto here = static_cast<double>(buckets[i]);
    if (here > 0 && below + here >= wanted) {
      const auto begin = i == 0 ? 0.0 : static_cast<double>(LatencyBucketEnd(i - 1));
      const double end =
          i + 1 == kLatencyBuckets ? static_cast<double>(max_ns) : static_cast<double>(LatencyBucketEnd(i));
      const double at = begin + (end - begin) * (wanted - below) / here;
      return std::min(at, static_cast<double>(max_ns));
    }
    below += here;
  }
  return static_cast<double>(max_ns);
}

void LatencyCounts::Add(const LatencyCounts& other) {
  for (size_t i = 0; i < kLatencyBuckets; ++i) buckets[i] += other.buckets[i];
  sum_ns += other.sum_ns;
  max_ns = std::max(max_ns, other.max_ns);
}

LatencyCounts LatencyCounts::Since(const LatencyCounts& earlier) const {
  LatencyCounts since;
  for (size_t i = 0; i < kLatencyBuckets; ++i) {
    since.buckets[i] = buckets[i] - std::min(buckets[i], earlier.buckets[i]);
    if (since.buckets[i] > 0) since.max_ns = std::min(max_ns, LatencyBucketEnd(i));
  }
  since.sum_ns = sum_ns - std::min(sum_ns, earlier.sum_ns);
  return since;
}

LatencyCounts LatencyHistogram::Read() const {
  LatencyCounts counts;
  for (size_t i = 0; i < kLatencyBuckets; ++i) counts.buckets[i] = buckets_[i].load(std::memory_order_relaxed);
  counts.sum_ns = sum_ns_.load(std::memory_order_relaxed);
  counts.max_ns = max_ns_.load(std::memory_order_relaxed);
  return counts;
}

}  // namespace tensorshelf
