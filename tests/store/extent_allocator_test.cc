// Goal: every rule that store/extent_allocator.h states, and that nothing is ever handed out twice or lost. Method:
// small cases by hand, broken rules as death tests, and random operations against an oracle with one state per unit.

#include "store/extent_allocator.h"

#include <gtest/gtest.h>
#include <time.h>

#include <algorithm>
#include <random>
#include <thread>

#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kUnitsPerGiB = (uint64_t{1} << 30) / kUnitBytes;

std::unique_ptr<ExtentAllocator> OneFile(uint64_t units, uint64_t first_unit = 256) {
  auto allocator = std::make_unique<ExtentAllocator>();
  EXPECT_OK(allocator->AddFile({1, first_unit, first_unit + units}));
  return allocator;
}

// Of this thread: other work on the machine does not count.
double ThreadCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

uint64_t UnitsOf(const std::vector<Extent>& extents) {
  uint64_t units = 0;
  for (const Extent& extent : extents) units += extent.units;
  return units;
}

TEST(ExtentAllocator, CutsLargeObjectsFromTheLowEndAndSmallOnesFromTheHighEnd) {
  auto allocator = OneFile(10000, 257);
  ASSERT_OK_AND_ASSIGN(auto small, allocator->Reserve({.units = 3}));
  ASSERT_OK_AND_ASSIGN(auto large, allocator->Reserve({.units = 300, .large = true}));
  EXPECT_EQ(small, (std::vector<Extent>{{1, 3, 10254}}));
  EXPECT_EQ(large, (std::vector<Extent>{{1, 300, 272}}));  // 257 rounded up to 64 KiB
  EXPECT_EQ(allocator->totals()[SpaceState::kReserved], 303u);
  EXPECT_EQ(allocator->totals()[SpaceState::kFree], 10000u - 303u);
}

TEST(ExtentAllocator, TakesTheSmallestHoleThatFits) {
  auto allocator = OneFile(1000, 0);
  ASSERT_OK_AND_ASSIGN(auto all, allocator->Reserve({.units = 1000}));
  allocator->Move(std::vector<Extent>{{1, 50, 100}, {1, 20, 300}, {1, 30, 500}}, SpaceState::kReserved,
                  SpaceState::kFree);
  ASSERT_OK_AND_ASSIGN(auto extents, allocator->Reserve({.units = 18}));
  EXPECT_EQ(extents, (std::vector<Extent>{{1, 18, 302}}));
}

// Units 0 to 999, all live but for the holes.
std::unique_ptr<ExtentAllocator> WithHoles(const std::vector<Extent>& holes) {
  auto allocator = OneFile(1000, 0);
  const auto all = allocator->Reserve({.units = 1000});
  EXPECT_OK(all);
  allocator->Move(*all, SpaceState::kReserved, SpaceState::kLive);
  allocator->Move(holes, SpaceState::kLive, SpaceState::kParked);
  allocator->Move(holes, SpaceState::kParked, SpaceState::kFree);
  return allocator;
}

TEST(ExtentAllocator, ABetterPlaceIsBelowForLargeObjectsAndAboveForSmallOnes) {
  auto allocator = WithHoles({{1, 40, 96}, {1, 20, 304}, {1, 100, 500}, {1, 15, 700}, {1, 12, 900}});
  // Each touches the free run in the middle.
  ASSERT_OK_AND_ASSIGN(const Extent large,
                       allocator->ReserveBetter({.units = 18, .large = true, .leaving = {1, 18, 482}}));
  EXPECT_EQ(large, (Extent{1, 18, 304}));
  ASSERT_OK_AND_ASSIGN(const Extent small, allocator->ReserveBetter({.units = 10, .leaving = {1, 10, 600}}));
  EXPECT_EQ(small, (Extent{1, 10, 902}));
  // Only holes on its own side count.
  EXPECT_TRUE(absl::IsResourceExhausted(
      allocator->ReserveBetter({.units = 60, .large = true, .leaving = {1, 60, 422}}).status()));
}

TEST(ExtentAllocator, AMoveThatOnlyChangesOneHoleForAnotherIsRefused) {
  auto allocator = WithHoles({{1, 56, 96}, {1, 30, 500}});
  const BetterPlace inside{.units = 20, .large = true, .leaving = {1, 20, 300}};
  EXPECT_TRUE(absl::IsResourceExhausted(allocator->ReserveBetter(inside).status()));
  BetterPlace next_to_a_leaving_one = inside;
  next_to_a_leaving_one.neighbour_leaves = true;
  ASSERT_OK_AND_ASSIGN(const Extent taken, allocator->ReserveBetter(next_to_a_leaving_one));
  EXPECT_EQ(taken, (Extent{1, 20, 96}));
  // What it leaves joins a free run: better than now, though nothing is free behind it.
  ASSERT_OK_AND_ASSIGN(const Extent joins,
                       allocator->ReserveBetter({.units = 20, .large = true, .leaving = {1, 20, 530}}));
  EXPECT_EQ(joins, (Extent{1, 20, 128}));
}

TEST(ExtentAllocator, ADrainingFileTakesNothingUntilItIsTakenBack) {
  ExtentAllocator allocator;
  ASSERT_OK(allocator.AddFile({1, 0, 100}));
  ASSERT_OK(allocator.AddFile({2, 0, 1000}));
  ASSERT_OK(allocator.SetDraining(2, true));
  ASSERT_OK_AND_ASSIGN(const auto extents, allocator.Reserve({.units = 60}));
  EXPECT_EQ(extents[0].file_id, 1u);
  EXPECT_TRUE(absl::IsResourceExhausted(allocator.Reserve({.units = 60}).status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(allocator.Reserve({.units = 60, .file_id = 2}).status()));
  ASSERT_OK(allocator.SetDraining(2, false));
  EXPECT_OK(allocator.Reserve({.units = 60}));
  EXPECT_TRUE(absl::IsNotFound(allocator.SetDraining(3, true)));
}

TEST(ExtentAllocator, PassesOverAMisalignedBestHole) {
  auto allocator = OneFile(1000, 0);
  ASSERT_OK(allocator->Reserve({.units = 1000}));
  // Both holes are long enough for 256 units, the smaller one only without alignment.
  allocator->Move(std::vector<Extent>{{1, 260, 1}, {1, 265, 505}}, SpaceState::kReserved, SpaceState::kFree);
  ASSERT_OK_AND_ASSIGN(auto extents, allocator->Reserve({.units = 256, .large = true, .allow_split = false}));
  EXPECT_EQ(extents, (std::vector<Extent>{{1, 256, 512}}));
}

TEST(ExtentAllocator, FindsTheOneAlignedHoleBehindManyMisalignedOnes) {
  // 200 holes of 20 units that start one unit after a multiple of 16, and one aligned hole of 22 units: longer than the
  // request of 20 but shorter than the 35 that always fit.
  auto allocator = OneFile(8192, 0);
  ASSERT_OK(allocator->Reserve({.units = 8192}));
  std::vector<Extent> holes;
  for (uint64_t i = 0; i < 200; ++i) holes.push_back({1, 20, i * 32 + 1});
  holes.push_back({1, 22, 7168});
  allocator->Move(holes, SpaceState::kReserved, SpaceState::kFree);
  ASSERT_OK_AND_ASSIGN(auto extents, allocator->Reserve({.units = 20, .large = true, .allow_split = false}));
  EXPECT_EQ(extents, (std::vector<Extent>{{1, 20, 7168}}));
}

TEST(ExtentAllocator, SplitsOverTheLongestHolesWhenThereIsNoRun) {
  auto allocator = OneFile(1000, 0);
  ASSERT_OK(allocator->Reserve({.units = 1000}));
  allocator->Move(std::vector<Extent>{{1, 10, 0}, {1, 40, 100}, {1, 30, 200}, {1, 7, 300}}, SpaceState::kReserved,
                  SpaceState::kFree);
  EXPECT_FAILS(allocator->Reserve({.units = 75, .allow_split = false}), absl::StatusCode::kResourceExhausted,
               "87 units are free, the largest run has 40");
  EXPECT_FAILS(allocator->Reserve({.units = 75, .extents_max = 2}), absl::StatusCode::kResourceExhausted, "75 units");
  ASSERT_OK_AND_ASSIGN(auto extents, allocator->Reserve({.units = 75}));
  EXPECT_EQ(extents, (std::vector<Extent>{{1, 40, 100}, {1, 30, 200}, {1, 5, 302}}));
}

TEST(ExtentAllocator, SplitsLargeObjectsOn64KiBWhereItCan) {
  auto allocator = OneFile(4096, 0);
  ASSERT_OK(allocator->Reserve({.units = 4096}));
  allocator->Move(std::vector<Extent>{{1, 100, 1}, {1, 300, 1001}}, SpaceState::kReserved, SpaceState::kFree);
  ASSERT_OK_AND_ASSIGN(auto aligned, allocator->Reserve({.units = 350, .large = true}));
  EXPECT_EQ(aligned, (std::vector<Extent>{{1, 288, 1008}, {1, 62, 16}}));
  // What is left are pieces between multiples of 64 KiB: still space.
  const uint64_t left = allocator->totals()[SpaceState::kFree];
  ASSERT_OK_AND_ASSIGN(auto rest, allocator->Reserve({.units = left, .large = true}));
  EXPECT_EQ(UnitsOf(rest), left);
}

TEST(ExtentAllocator, PrefersFilledSpaceAndLeavesItWhenItDoesNotFit) {
  auto allocator = OneFile(10000, 0);
  ASSERT_OK(allocator->SetFilled(1, 1000));
  ASSERT_OK_AND_ASSIGN(auto small, allocator->Reserve({.units = 10}));
  EXPECT_EQ(small, (std::vector<Extent>{{1, 10, 990}}));  // the high end of the filled part, not of the file
  ASSERT_OK_AND_ASSIGN(auto inside, allocator->Reserve({.units = 500, .large = true}));
  EXPECT_EQ(inside, (std::vector<Extent>{{1, 500, 0}}));
  ASSERT_OK_AND_ASSIGN(auto outside, allocator->Reserve({.units = 600, .large = true}));
  EXPECT_GE(outside.front().first_unit, 1000u);
  ASSERT_OK(allocator->SetFilled(1, 10000));
  ASSERT_OK_AND_ASSIGN(auto later, allocator->Reserve({.units = 600}));
  EXPECT_EQ(later, (std::vector<Extent>{{1, 600, 9400}}));
}

TEST(ExtentAllocator, ChoosesTheFileWithTheLargestFreeShare) {
  ExtentAllocator allocator;
  ASSERT_OK(allocator.AddFile({1, 0, 1000}));
  ASSERT_OK(allocator.AddFile({2, 0, 100}));
  ASSERT_OK(allocator.Reserve({.units = 500, .file_id = 1}));
  ASSERT_OK_AND_ASSIGN(auto second, allocator.Reserve({.units = 60}));
  EXPECT_EQ(second.front().file_id, 2u);  // all of it was free, only half of file 1
  ASSERT_OK_AND_ASSIGN(auto first, allocator.Reserve({.units = 60}));
  EXPECT_EQ(first.front().file_id, 1u);
  ASSERT_OK_AND_ASSIGN(auto both, allocator.Reserve({.units = 470}));  // 440 and 40 are free
  EXPECT_EQ(both, (std::vector<Extent>{{1, 440, 0}, {2, 30, 10}}));
}

TEST(ExtentAllocator, ReadOnlyAndUnknownFiles) {
  ExtentAllocator allocator;
  ASSERT_OK(allocator.AddFile({1, 0, 100}));
  ASSERT_OK(allocator.AddFile({2, 0, 100}));
  ASSERT_OK_AND_ASSIGN(auto held, allocator.Reserve({.units = 10, .file_id = 1}));
  ASSERT_OK(allocator.SetReadOnly(1));
  EXPECT_FAILS(allocator.Reserve({.units = 1, .file_id = 1}), absl::StatusCode::kFailedPrecondition, "1");
  EXPECT_FAILS(allocator.Reserve({.units = 1, .file_id = 9}), absl::StatusCode::kNotFound, "9");
  EXPECT_FAILS(allocator.Reserve({.units = 101}), absl::StatusCode::kResourceExhausted, "100 units are free");
  EXPECT_FAILS(allocator.Reserve({.units = 0}), absl::StatusCode::kInvalidArgument, "0 units");
  EXPECT_FAILS(allocator.AddFile({2, 0, 5}), absl::StatusCode::kAlreadyExists, "2");
  EXPECT_FAILS(allocator.AddFile({3, 5, 5}), absl::StatusCode::kInvalidArgument, "3");
  EXPECT_FAILS(allocator.AddFile({3, 0, uint64_t{1} << 40}), absl::StatusCode::kInvalidArgument, "3");
  EXPECT_FAILS(allocator.AddFile({3, ~uint64_t{0} - 5, ~uint64_t{0}}), absl::StatusCode::kInvalidArgument, "3");
  EXPECT_FAILS(allocator.RemoveFile(1), absl::StatusCode::kFailedPrecondition, "10 units");
  EXPECT_FAILS(allocator.file(3), absl::StatusCode::kNotFound, "3");
  allocator.Move(held, SpaceState::kReserved, SpaceState::kFree);
  ASSERT_OK(allocator.RemoveFile(1));
  EXPECT_EQ(allocator.capacity_units(), 100u);
}

TEST(ExtentAllocator, WalksThroughTheStates) {
  auto allocator = OneFile(100, 0);
  ASSERT_OK_AND_ASSIGN(auto extents, allocator->Reserve({.units = 40}));
  const std::pair<SpaceState, SpaceState> steps[] = {
      {SpaceState::kReserved, SpaceState::kLive}, {SpaceState::kLive, SpaceState::kParked},
      {SpaceState::kParked, SpaceState::kLimbo},  {SpaceState::kLimbo, SpaceState::kScratch},
      {SpaceState::kScratch, SpaceState::kFree},
  };
  for (const auto& [from, to] : steps) {
    allocator->Move(extents, from, to);
    EXPECT_EQ(allocator->totals()[to], to == SpaceState::kFree ? 100u : 40u) << SpaceStateName(to);
    EXPECT_EQ(allocator->totals().total(), 100u);
  }
  EXPECT_EQ(allocator->FreeExtents(), (std::vector<Extent>{{1, 100, 0}}));
}

TEST(ExtentAllocator, ReservesABatchAsOneRun) {
  auto allocator = OneFile(1000, 0);
  const std::vector<uint64_t> units(50, 3);
  ASSERT_OK_AND_ASSIGN(auto runs, allocator->ReserveRun(units, std::nullopt));
  ASSERT_EQ(runs.size(), 50u);
  for (size_t i = 0; i < runs.size(); ++i) EXPECT_EQ(runs[i], (std::vector<Extent>{{1, 3, 850 + i * 3}}));
}

TEST(ExtentAllocator, ABatchFallsBackToSeveralRunsAndIsAllOrNothing) {
  auto allocator = OneFile(1000, 0);
  ASSERT_OK(allocator->Reserve({.units = 1000}));
  std::vector<Extent> holes;
  for (uint64_t i = 0; i < 10; ++i) holes.push_back({1, 11, i * 100});
  allocator->Move(holes, SpaceState::kReserved, SpaceState::kFree);
  EXPECT_FAILS(allocator->ReserveRun(std::vector<uint64_t>(50, 3), std::nullopt), absl::StatusCode::kResourceExhausted,
               "150 units");
  EXPECT_EQ(allocator->totals()[SpaceState::kFree], 110u);
  ASSERT_OK_AND_ASSIGN(auto runs, allocator->ReserveRun(std::vector<uint64_t>(36, 3), std::nullopt));
  uint64_t units = 0;
  for (const auto& run : runs) {
    EXPECT_EQ(UnitsOf(run), 3u);
    units += UnitsOf(run);
  }
  EXPECT_EQ(units, 108u);
  EXPECT_EQ(allocator->totals()[SpaceState::kFree], 2u);
}

TEST(ExtentAllocator, ReservesWhatIsFreeInARange) {
  auto allocator = OneFile(100, 0);
  ASSERT_OK(allocator->Reserve({.units = 100}));
  allocator->Move(std::vector<Extent>{{1, 10, 5}, {1, 10, 30}, {1, 10, 60}}, SpaceState::kReserved, SpaceState::kFree);
  ASSERT_OK_AND_ASSIGN(auto extents, allocator->ReserveFreeIn(1, 10, 65));
  EXPECT_EQ(extents, (std::vector<Extent>{{1, 5, 10}, {1, 10, 30}, {1, 5, 60}}));
  ASSERT_OK_AND_ASSIGN(auto none, allocator->ReserveFreeIn(1, 10, 65));
  EXPECT_TRUE(none.empty());
}

TEST(ExtentAllocator, ScoresFragmentation) {
  auto allocator = OneFile(1024, 0);
  EXPECT_DOUBLE_EQ(allocator->FragmentationScore(), 0);
  ASSERT_OK(allocator->Reserve({.units = 1024}));
  EXPECT_DOUBLE_EQ(allocator->FragmentationScore(), 0);  // nothing is free
  std::vector<Extent> singles;
  for (uint64_t i = 0; i < 1024; i += 2) singles.push_back({1, 1, i});
  allocator->Move(singles, SpaceState::kReserved, SpaceState::kFree);
  EXPECT_DOUBLE_EQ(allocator->FragmentationScore(), 1);
  std::vector<Extent> more;
  for (uint64_t i = 1; i < 512; i += 2) more.push_back({1, 1, i});
  allocator->Move(more, SpaceState::kReserved, SpaceState::kFree);
  EXPECT_GT(allocator->FragmentationScore(), 0.2);
  EXPECT_LT(allocator->FragmentationScore(), 0.8);
}

TEST(ExtentAllocatorRebuild, GivesBackExactlyWhatIsNotOwned) {
  const SpaceFile files[] = {{1, 256, 1000}, {4, 256, 512}};
  ASSERT_OK_AND_ASSIGN(
      auto allocator,
      ExtentAllocator::Rebuild(files, {{7, {4, 256, 256}}, {8, {1, 10, 300}}, {9, {1, 10, 310}}, {9, {1, 1, 999}}}));
  EXPECT_EQ(allocator->FreeExtents(), (std::vector<Extent>{{1, 44, 256}, {1, 679, 320}}));
  EXPECT_EQ(allocator->totals()[SpaceState::kLive], 277u);
  ASSERT_OK_AND_ASSIGN(auto again, ExtentAllocator::FromFreeExtents(files, allocator->FreeExtents()));
  EXPECT_EQ(again->FreeExtents(), allocator->FreeExtents());
  EXPECT_EQ(again->totals(), allocator->totals());
}

TEST(ExtentAllocatorRebuild, RefusesWhatCannotBe) {
  const SpaceFile files[] = {{1, 256, 1000}};
  const auto rebuild = [&](std::vector<OwnedExtent> owned) {
    return ExtentAllocator::Rebuild(files, std::move(owned)).status();
  };
  const auto loss = absl::StatusCode::kDataLoss;
  EXPECT_FAILS(rebuild({{7, {1, 10, 300}}, {8, {1, 10, 309}}}), loss, "generation 7 and generation 8 overlap");
  EXPECT_FAILS(rebuild({{7, {1, 10, 300}}, {8, {1, 10, 309}}}), loss, "units [309, 319) of data file 1");
  EXPECT_FAILS(rebuild({{7, {1, 10, 300}}, {7, {1, 10, 300}}}), loss, "generation 7 and generation 7 overlap");
  EXPECT_FAILS(rebuild({{7, {1, 100, 300}}, {8, {1, 1, 302}}, {9, {1, 1, 304}}}), loss, "overlap");
  EXPECT_FAILS(rebuild({{7, {1, 1, 255}}}), loss, "generation 7: 1 units at unit 255");
  EXPECT_FAILS(rebuild({{7, {1, 2, 999}}}), loss, "999");
  EXPECT_FAILS(rebuild({{7, {1, 0, 300}}}), loss, "no units");
  EXPECT_FAILS(rebuild({{7, {2, 1, 300}}}), loss, "data file 2 is unknown");
  EXPECT_FAILS(rebuild({{7, {1, ~uint32_t{0}, ~uint64_t{0} - 1}}}), loss, "generation 7");
  EXPECT_FAILS(ExtentAllocator::FromFreeExtents(files, {{1, 5, 300}, {1, 5, 305}}), loss, "touch");
  EXPECT_FAILS(ExtentAllocator::FromFreeExtents(files, {{1, 5, 1300}}), loss, "free extent");
}

TEST(ExtentAllocatorRebuild, TakesFourMillionExtents) {
  constexpr uint32_t kCount = 4'000'000 / testing::kScaleDown;
  std::vector<OwnedExtent> owned;
  owned.reserve(kCount);
  for (uint64_t i = 0; i < kCount; ++i) owned.push_back({i, {1, 3, 256 + i * 4}});
  std::shuffle(owned.begin(), owned.end(), std::mt19937_64(1));
  const SpaceFile files[] = {{1, 256, 256 + uint64_t{kCount} * 4}};
  const double start = ThreadCpuSeconds();
  ASSERT_OK_AND_ASSIGN(auto allocator, ExtentAllocator::Rebuild(files, std::move(owned)));
  const double taken = ThreadCpuSeconds() - start;
  RecordProperty("cpu_milliseconds", static_cast<int>(taken * 1000));
  EXPECT_EQ(allocator->totals()[SpaceState::kFree], kCount);
  ASSERT_OK_AND_ASSIGN(const FileSpace space, allocator->file(1));
  EXPECT_EQ(space.free_extents, kCount);
  EXPECT_EQ(space.largest_free_units, 1u);
}

class ExtentAllocatorDeathTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::testing::GTEST_FLAG(death_test_style) = "threadsafe";
    allocator_ = OneFile(100, 0);
    held_ = *allocator_->Reserve({.units = 40});  // [60, 100)
  }
  void Move(const Extent& extent, SpaceState from, SpaceState to) { allocator_->Move({&extent, 1}, from, to); }

  std::unique_ptr<ExtentAllocator> allocator_;
  std::vector<Extent> held_;
};

TEST_F(ExtentAllocatorDeathTest, BrokenRulesAbort) {
  allocator_->Move(std::vector<Extent>{{1, 10, 60}}, SpaceState::kReserved, SpaceState::kFree);
  const char* message = "broken invariant";
  EXPECT_DEATH(Move({1, 10, 60}, SpaceState::kReserved, SpaceState::kFree), message) << "double free";
  EXPECT_DEATH(Move({1, 11, 69}, SpaceState::kReserved, SpaceState::kFree), message) << "overlaps a free extent";
  EXPECT_DEATH(Move({1, 11, 69}, SpaceState::kReserved, SpaceState::kLive), message) << "a free unit made live";
  EXPECT_DEATH(Move({1, 10, 80}, SpaceState::kLive, SpaceState::kParked), message) << "more than is counted as live";
  EXPECT_DEATH(Move({1, 10, 20}, SpaceState::kFree, SpaceState::kLive), message) << "only Reserve takes free space";
  EXPECT_DEATH(Move({1, 31, 70}, SpaceState::kReserved, SpaceState::kLive), message) << "beyond the data area";
  EXPECT_DEATH(Move({2, 1, 70}, SpaceState::kReserved, SpaceState::kLive), message) << "an unknown file";
  EXPECT_DEATH(Move({1, 0, 70}, SpaceState::kReserved, SpaceState::kLive), message) << "an empty extent";
  Move({1, 10, 80}, SpaceState::kReserved, SpaceState::kLive);
  EXPECT_DEATH(Move({1, 10, 80}, SpaceState::kLive, SpaceState::kFree), message) << "live space must be parked first";
  Move({1, 10, 80}, SpaceState::kLive, SpaceState::kBad);
  EXPECT_DEATH(Move({1, 10, 80}, SpaceState::kBad, SpaceState::kFree), message) << "bad space stays bad";
}

TEST(ExtentAllocatorThreads, ConcurrentReservationsNeverOverlap) {
  auto allocator = OneFile(kUnitsPerGiB, 256);
  std::vector<std::vector<Extent>> kept(4);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kept.size(); ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(t);
      for (int i = 0; i < 3000; ++i) {
        const bool large = random() % 4 == 0;
        const auto extents = allocator->Reserve({.units = random() % (large ? 900 : 60) + 1, .large = large});
        if (!extents.ok()) continue;
        if (random() % 2 == 0) {
          allocator->Move(*extents, SpaceState::kReserved, SpaceState::kFree);
        } else {
          allocator->Move(*extents, SpaceState::kReserved, SpaceState::kLive);
          kept[t].insert(kept[t].end(), extents->begin(), extents->end());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<OwnedExtent> owned;
  for (size_t t = 0; t < kept.size(); ++t) {
    for (const Extent& extent : kept[t]) owned.push_back({t, extent});
  }
  const SpaceFile files[] = {{1, 256, 256 + kUnitsPerGiB}};
  ASSERT_OK_AND_ASSIGN(auto rebuilt, ExtentAllocator::Rebuild(files, owned));
  EXPECT_EQ(rebuilt->FreeExtents(), allocator->FreeExtents());
  EXPECT_EQ(rebuilt->totals(), allocator->totals());
}

}  // namespace
}  // namespace tensorshelf
