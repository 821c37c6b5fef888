// Counts of how long something took, in buckets whose bounds grow by halves: 256 ns, 384 ns, 512 ns, 768 ns, 1.024 us
// and so on up to 9 minutes, so that any latency is known to within a half of itself.
//
//   bucket 0           below 256 ns
//   bucket 1 + 2 i     [2^(8 + i), 1.5 * 2^(8 + i)) ns      i = 0 .. 30
//   bucket 2 + 2 i     [1.5 * 2^(8 + i), 2^(9 + i)) ns
//   bucket 63          2^39 ns (9.2 minutes) and more

#ifndef TENSORSHELF_ENGINE_FOUNDATION_LATENCY_HISTOGRAM_H_
#define TENSORSHELF_ENGINE_FOUNDATION_LATENCY_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tensorshelf {

inline constexpr size_t kLatencyBuckets = 64;

inline uint64_t SteadyNanoseconds() {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
          .count());
}

constexpr size_t LatencyBucket(uint64_t nanoseconds) {
  if (nanoseconds < 256) return 0;
  const size_t octave = static_cast<size_t>(std::bit_width(nanoseconds)) - 1;
  const size_t upper_half = nanoseconds >> (octave - 1) & 1;
  return std::min<size_t>(kLatencyBuckets - 1, 1 + 2 * (octave - 8) + upper_half);
}

// The smallest number of nanoseconds that is beyond the bucket; UINT64_MAX for the last one.
constexpr uint64_t LatencyBucketEnd(size_t bucket) {
  if (bucket + 1 >= kLatencyBuckets) return UINT64_MAX;
  const uint64_t octave = uint64_t{1} << (8 + bucket / 2);
  return bucket % 2 == 0 ? octave : octave + octave / 2;
}

// What a LatencyHistogram counted. Plain data of fixed layout.
struct LatencyCounts {
  std::array<uint64_t, kLatencyBuckets> buckets{};
  uint64_t sum_ns = 0;
  uint64_t max_ns = 0;

  uint64_t count() const;
  double mean_ns() const;
  // The latency that a share `quantile` (0 .. 1) of all stayed below, interpolated in its bucket and never above
  // max_ns; 0 without any.
  double QuantileNs(double quantile) const;
  void Add(const LatencyCounts& other);
  // What came since `earlier`, a reading of the same histogram. The largest one of that time is not known: max_ns is
  // the end of the highest bucket that something fell into, or the largest one of all where that is less.
  LatencyCounts Since(const LatencyCounts& earlier) const;

  friend bool operator==(const LatencyCounts&, const LatencyCounts&) = default;
};
static_assert(sizeof(LatencyCounts) == 528);

// Thread-safe and lock-free. Relaxed: each number is one of its own; a Read beside a Record may have it in part.
class LatencyHistogram {
 public:
  // `weight`: how many it stands for.
  void Record(uint64_t nanoseconds, uint64_t weight = 1) {
    buckets_[LatencyBucket(nanoseconds)].fetch_add(weight, std::memory_order_relaxed);
    sum_ns_.fetch_add(nanoseconds * weight, std::memory_order_relaxed);
    uint64_t largest = max_ns_.load(std::memory_order_relaxed);
    while (nanoseconds > largest && !max_ns_.compare_exchange_weak(largest, nanoseconds, std::memory_order_relaxed)) {
    }
  }

  LatencyCounts Read() const;

 private:
  std::array<std::atomic<uint64_t>, kLatencyBuckets> buckets_{};
  std::atomic<uint64_t> sum_ns_{0};
  std::atomic<uint64_t> max_ns_{0};
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_FOUNDATION_LATENCY_HISTOGRAM_H_
