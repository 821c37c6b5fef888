// Goal: months of replacement do not wear the free space down. Method: a simulated device of up to 1 TiB is filled with
// a mix of sizes, then objects are replaced copy on write until six times its size was written; bounds on splits and on
// the score.

#include <gtest/gtest.h>
#include <time.h>

#include <cmath>
#include <random>

#include "store/extent_allocator.h"
#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kKiB = 1024, kMiB = kKiB * 1024, kGiB = kMiB * 1024;
constexpr uint64_t kFirstUnit = kMiB / kUnitBytes;
constexpr uint64_t kTimesWritten = 6;

// Objects of one mix: `share` of them, sizes log-uniform in [low, high].
struct SizeClass {
  double share;
  uint64_t low, high;
};

// kVersions: an object is replaced by one of its own size, as in a training run. kRedrawn: by one of a size drawn anew,
// so that the share of each size wanders.
enum class Replacement { kVersions, kRedrawn };

struct Ageing {
  const char* name;
  std::vector<SizeClass> mix;
  uint64_t device_gib;
  double fill;
  Replacement replacement;
  // What must hold over all reservations after the device was full.
  double split_percent_max;
  double extents_mean_max;
  double score_max;
};

void PrintTo(const Ageing& ageing, std::ostream* out) { *out << ageing.name << " at " << ageing.fill; }

// The shapes of dense and grouped-query models of 7 to 70 billion parameters, bf16 weights and fp32 optimizer states: a
// model has few different sizes, so what one tensor leaves is what another of its kind needs.
std::vector<SizeClass> LlmShapes() {
  const std::pair<double, uint64_t> shapes[] = {
      {20, 8 * kKiB},    {10, 16 * kKiB},   {10, 32 * kKiB},                      // norms
      {6, 128 * kKiB},   {6, 512 * kKiB},   {4, 2 * kMiB},                        // adapters, routers
      {8, 8 * kMiB},     {8, 16 * kMiB},    {4, 32 * kMiB},                       // key and value projections
      {8, 32 * kMiB},    {6, 64 * kMiB},    {6, 128 * kMiB},    {3, 256 * kMiB},  // query and output projections
      {6, 86 * kMiB},    {8, 112 * kMiB},   {4, 172 * kMiB},    {4, 448 * kMiB}, {2, 896 * kMiB},  // MLP
      {0.5, 250 * kMiB}, {0.3, 500 * kMiB}, {0.3, 1002 * kMiB},                                    // embeddings
  };
  double sum = 0;
  for (const auto& [weight, bytes] : shapes) sum += weight;
  std::vector<SizeClass> mix;
  for (const auto& [weight, bytes] : shapes) mix.push_back({weight / sum, bytes, bytes});
  return mix;
}

// The same span of sizes without repetition, so that nothing ever fits exactly: worse than any real model.
std::vector<SizeClass> LlmContinuous() {
  return {{0.40, 8 * kKiB, 64 * kKiB},   {0.10, 64 * kKiB, kMiB},        {0.10, kMiB, 16 * kMiB},
          {0.25, 16 * kMiB, 128 * kMiB}, {0.12, 128 * kMiB, 512 * kMiB}, {0.03, 512 * kMiB, kGiB}};
}

double ThreadCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

class AgeingTest : public ::testing::TestWithParam<Ageing> {
 protected:
  struct Object {
    std::vector<Extent> extents;
    uint64_t units = 0;
    uint64_t bytes = 0;
  };

  uint64_t DrawBytes() {
    double at = std::uniform_real_distribution<double>(0, 1)(random_);
    for (const SizeClass& size_class : GetParam().mix) {
      if ((at -= size_class.share) > 0) continue;
      return static_cast<uint64_t>(std::exp(std::uniform_real_distribution<double>(
          std::log(static_cast<double>(size_class.low)), std::log(static_cast<double>(size_class.high)))(random_)));
    }
    return GetParam().mix.back().high;
  }

  // Data, and from 64 KiB on a trailer of a unit and 8 bytes for each block.
  static ReserveRequest RequestFor(uint64_t bytes) {
    const uint64_t trailer = bytes < 64 * kKiB ? 0 : 512 + bytes / (64 * kKiB) * 8;
    const uint64_t units = (bytes + kUnitBytes - 1) / kUnitBytes + (trailer + kUnitBytes - 1) / kUnitBytes;
    return {.units = units, .large = bytes >= kLargeObjectBytes};
  }

  // False when there is no room.
  bool Put(uint64_t bytes) {
    const ReserveRequest request = RequestFor(bytes);
    auto extents = allocator_.Reserve(request);
    if (!extents.ok()) return false;
    allocator_.Move(*extents, SpaceState::kReserved, SpaceState::kLive);
    ++reservations_;
    splits_ += extents->size() > 1;
    extents_ += extents->size();
    written_units_ += request.units;
    live_units_ += request.units;
    objects_.push_back({*std::move(extents), request.units, bytes});
    return true;
  }

  void Drop(size_t index) {
    Object& victim = objects_[index];
    allocator_.Move(victim.extents, SpaceState::kLive, SpaceState::kParked);
    allocator_.Move(victim.extents, SpaceState::kParked, SpaceState::kFree);
    live_units_ -= victim.units;
    std::swap(victim, objects_.back());
    objects_.pop_back();
  }

  ExtentAllocator allocator_;
  std::mt19937_64 random_{20260101};
  std::vector<Object> objects_;
  uint64_t reservations_ = 0, splits_ = 0, extents_ = 0, written_units_ = 0, live_units_ = 0;
};

TEST_P(AgeingTest, StaysWhole) {
  const uint64_t device_units = GetParam().device_gib * kGiB / kUnitBytes;
  ASSERT_OK(allocator_.AddFile({1, kFirstUnit, kFirstUnit + device_units}));
  const auto target = static_cast<uint64_t>(GetParam().fill * static_cast<double>(device_units));
  while (live_units_ < target) ASSERT_TRUE(Put(DrawBytes()));
  reservations_ = splits_ = extents_ = written_units_ = 0;

  const double start = ThreadCpuSeconds();
  while (written_units_ < kTimesWritten * device_units / testing::kScaleDown) {
    // Copy on write: the new version first, then what it replaces goes. A version that finds no room although it may be
    // split is a failure: the free space is larger than any object.
    if (GetParam().replacement == Replacement::kVersions) {
      const size_t old = random_() % objects_.size();
      ASSERT_TRUE(Put(objects_[old].bytes));
      Drop(old);
    } else {
      ASSERT_TRUE(Put(DrawBytes()));
      while (live_units_ > target) Drop(random_() % objects_.size());
    }
  }
  const double seconds = ThreadCpuSeconds() - start;

  const double split_percent = 100.0 * static_cast<double>(splits_) / static_cast<double>(reservations_);
  const double extents_mean = static_cast<double>(extents_) / static_cast<double>(reservations_);
  const double score = allocator_.FragmentationScore();
  ASSERT_OK_AND_ASSIGN(const FileSpace space, allocator_.file(1));
  RecordProperty("reservations", std::to_string(reservations_));
  RecordProperty("split_percent", std::to_string(split_percent));
  RecordProperty("extents_mean", std::to_string(extents_mean));
  RecordProperty("score", std::to_string(score));
  RecordProperty("largest_free_gib", std::to_string(static_cast<double>(space.largest_free_units) * kUnitBytes / kGiB));
  RecordProperty("free_extents", std::to_string(space.free_extents));
  RecordProperty("cpu_microseconds_per_replacement",
                 std::to_string(seconds * 1e6 / static_cast<double>(reservations_)));
  EXPECT_LE(split_percent, GetParam().split_percent_max);
  EXPECT_LE(extents_mean, GetParam().extents_mean_max);
  EXPECT_LE(score, GetParam().score_max);
}

constexpr auto kVersions = Replacement::kVersions, kRedrawn = Replacement::kRedrawn;

// The bounds that the design asks for hold where tensors of real shapes are replaced by versions of themselves. The
// other rows are what was measured, with little to spare: a change that makes the allocator worse shows here.
INSTANTIATE_TEST_SUITE_P(
    Mixes, AgeingTest,
    ::testing::Values(Ageing{"llm", LlmShapes(), 1024, 0.80, kVersions, 1, 1.05, 0.5},
                      Ageing{"llm", LlmShapes(), 1024, 0.95, kVersions, 1, 1.05, 0.5},
                      Ageing{"llm_continuous", LlmContinuous(), 1024, 0.95, kVersions, 1, 1.05, 0.65},
                      Ageing{"llm_redrawn", LlmShapes(), 1024, 0.80, kRedrawn, 1, 1.05, 0.5},
                      Ageing{"llm_redrawn", LlmShapes(), 1024, 0.95, kRedrawn, 1, 1.05, 0.65},
                      Ageing{"llm_continuous_redrawn", LlmContinuous(), 1024, 0.95, kRedrawn, 3, 1.05, 0.7},
                      Ageing{"log_uniform_redrawn", {{1, 4 * kKiB, kGiB}}, 1024, 0.95, kRedrawn, 4, 1.05, 0.65},
                      Ageing{"medium_redrawn", {{1, 256 * kKiB, 4 * kMiB}}, 16, 0.95, kRedrawn, 1, 1.05, 0.65}),
    [](const ::testing::TestParamInfo<Ageing>& info) {
      return info.param.name + std::to_string(static_cast<int>(info.param.fill * 100));
    });

}  // namespace
}  // namespace tensorshelf
