// Goal: no unit is handed out twice, lost, or miscounted, and space is refused only when there is none. Method: 100 000
// random operations on three files against an oracle that keeps one state per unit; tests/testing/scale.h makes them
// more, or others.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "store/extent_allocator.h"
#include "tests/testing/scale.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr int kOperations = 100'000;
constexpr int kOperationsPerFullCompare = 500;

class Oracle {
 public:
  explicit Oracle(std::span<const SpaceFile> files) {
    for (const SpaceFile& file : files)
      files_[file.file_id] = {file, std::vector<SpaceState>(file.units(), SpaceState::kFree)};
  }

  // Every unit of the extents is in `from`; then it is in `to`.
  ::testing::AssertionResult Move(std::span<const Extent> extents, SpaceState from, SpaceState to) {
    for (const Extent& extent : extents) {
      auto found = files_.find(extent.file_id);
      if (found == files_.end()) return ::testing::AssertionFailure() << "unknown file " << extent.file_id;
      auto& [file, states] = found->second;
      if (extent.units == 0 || extent.first_unit < file.first_unit || extent.end_unit() > file.end_unit) {
        return ::testing::AssertionFailure() << "extent outside the file at unit " << extent.first_unit;
      }
      for (uint64_t unit = extent.first_unit; unit < extent.end_unit(); ++unit) {
        SpaceState& state = states[unit - file.first_unit];
        if (state != from) {
          return ::testing::AssertionFailure()
                 << "unit " << unit << " is " << SpaceStateName(state) << ", not " << SpaceStateName(from);
        }
        state = to;
      }
      counters_[from] -= extent.units;
      counters_[to] += extent.units;
    }
    return ::testing::AssertionSuccess();
  }

  void CountAllFree() {
    for (const auto& [id, file] : files_) counters_[SpaceState::kFree] += file.states.size();
  }

  std::vector<Extent> Free(std::optional<uint32_t> only = std::nullopt) const {
    std::vector<Extent> free;
    for (const auto& [id, entry] : files_) {
      if (only && *only != id) continue;
      for (uint64_t i = 0; i < entry.states.size(); ++i) {
        if (entry.states[i] != SpaceState::kFree) continue;
        const uint64_t unit = entry.file.first_unit + i;
        if (!free.empty() && free.back().file_id == id && free.back().end_unit() == unit) {
          ++free.back().units;
        } else {
          free.push_back({id, 1, unit});
        }
      }
    }
    return free;
  }

  const SpaceCounters& counters() const { return counters_; }

 private:
  struct Entry {
    SpaceFile file;
    std::vector<SpaceState> states;
  };
  std::map<uint32_t, Entry> files_;
  SpaceCounters counters_;
};

struct Held {
  SpaceState state = SpaceState::kReserved;
  std::vector<Extent> extents;
};

class OracleTest : public ::testing::Test {
 protected:
  static constexpr SpaceFile kFiles[] = {{1, 256, 256 + 4096}, {2, 259, 259 + 9000}, {5, 1000, 1000 + 777}};

  OracleTest() : oracle_(kFiles), random_(testing::Seed(0)) {
    for (const SpaceFile& file : kFiles) EXPECT_OK(allocator_.AddFile(file));
    oracle_.CountAllFree();
  }

  uint64_t Below(uint64_t limit) { return random_() % limit; }

  uint64_t RandomUnits() { return Below(4) == 0 ? Below(1500) + 1 : Below(40) + 1; }

  std::optional<uint32_t> RandomFile() {
    if (Below(2) == 0) return std::nullopt;
    return kFiles[Below(3)].file_id;
  }

  void ReserveSome() {
    const uint64_t units = RandomUnits();
    const ReserveRequest request{.units = units,
                                 .file_id = RandomFile(),
                                 .large = Below(2) == 0,
                                 .allow_split = Below(4) != 0,
                                 .extents_max = Below(2) == 0 ? 4096u : static_cast<uint32_t>(Below(6) + 1)};
    auto extents = allocator_.Reserve(request);
    if (!extents.ok()) {
      EXPECT_FAILS(extents, absl::StatusCode::kResourceExhausted, "no space");
      EXPECT_FALSE(Fits(request)) << extents.status();
      return;
    }
    uint64_t got = 0;
    for (const Extent& extent : *extents) {
      got += extent.units;
      if (request.file_id) {
        EXPECT_EQ(extent.file_id, *request.file_id);
      }
    }
    EXPECT_EQ(got, request.units);
    EXPECT_LE(extents->size(), request.allow_split ? request.extents_max : 1);
    if (request.large && extents->size() == 1 && !request.allow_split) {
      EXPECT_EQ(extents->front().first_unit % kLargeAlignUnits, 0u);
    }
    ASSERT_TRUE(oracle_.Move(*extents, SpaceState::kFree, SpaceState::kReserved));
    held_.push_back({SpaceState::kReserved, *std::move(extents)});
  }

  // Whether the oracle's free map has room, by trying the longest holes.
  bool Fits(const ReserveRequest& request) const {
    std::vector<uint64_t> lengths;
    for (const Extent& hole : oracle_.Free(request.file_id)) {
      lengths.push_back(hole.units);
      const uint64_t align = request.large ? kLargeAlignUnits : 1;
      const uint64_t first = (hole.first_unit + align - 1) / align * align;
      if (first + request.units <= hole.end_unit()) return true;
    }
    if (!request.allow_split) return false;
    std::sort(lengths.rbegin(), lengths.rend());
    uint64_t sum = 0;
    for (size_t i = 0; i < lengths.size() && i < request.extents_max; ++i) sum += lengths[i];
    return sum >= request.units;
  }

  void ReserveBatch() {
    std::vector<uint64_t> units(Below(30) + 1);
    uint64_t sum = 0;
    for (uint64_t& each : units) sum += each = Below(12) + 1;
    const auto file_id = RandomFile();
    auto runs = allocator_.ReserveRun(units, file_id);
    if (!runs.ok()) {
      uint64_t free = 0;
      for (const Extent& hole : oracle_.Free(file_id)) free += hole.units;
      EXPECT_LT(free, sum) << runs.status();
      return;
    }
    ASSERT_EQ(runs->size(), units.size());
    for (size_t i = 0; i < units.size(); ++i) {
      uint64_t got = 0;
      for (const Extent& extent : (*runs)[i]) got += extent.units;
      EXPECT_EQ(got, units[i]);
      ASSERT_TRUE(oracle_.Move((*runs)[i], SpaceState::kFree, SpaceState::kReserved));
      held_.push_back({SpaceState::kReserved, std::move((*runs)[i])});
    }
  }

  void ReserveRange() {
    const SpaceFile& file = kFiles[Below(3)];
    const uint64_t first = Below(file.end_unit + 10), end = first + Below(60);
    ASSERT_OK_AND_ASSIGN(auto extents, allocator_.ReserveFreeIn(file.file_id, first, end));
    ASSERT_TRUE(oracle_.Move(extents, SpaceState::kFree, SpaceState::kReserved));
    if (first == end) {
      EXPECT_TRUE(extents.empty());
    }
    for (const Extent& hole : oracle_.Free(file.file_id)) {
      EXPECT_TRUE(first == end || hole.end_unit() <= first || hole.first_unit >= end)
          << "a free unit of the range was left";
    }
    if (!extents.empty()) held_.push_back({SpaceState::kReserved, std::move(extents)});
  }

  void MoveSome() {
    if (held_.empty()) return;
    const size_t index = Below(held_.size());
    Held& held = held_[index];
    SpaceState to = static_cast<SpaceState>(Below(6));  // not bad: it would eat the space up
    const bool may_be_freed = held.state != SpaceState::kLive;
    if (to == SpaceState::kFree && !may_be_freed) to = SpaceState::kParked;
    allocator_.Move(held.extents, held.state, to);
    ASSERT_TRUE(oracle_.Move(held.extents, held.state, to));
    held.state = to;
    if (to != SpaceState::kFree) return;
    std::swap(held, held_.back());
    held_.pop_back();
  }

  void MoveFillMark() {
    const SpaceFile& file = kFiles[Below(3)];
    ASSERT_OK(allocator_.SetFilled(file.file_id, file.first_unit + Below(file.units() + 1)));
  }

  void CompareAll() {
    EXPECT_EQ(allocator_.FreeExtents(), oracle_.Free());
    std::vector<OwnedExtent> owned;
    for (size_t i = 0; i < held_.size(); ++i) {
      for (const Extent& extent : held_[i].extents) owned.push_back({i, extent});
    }
    ASSERT_OK_AND_ASSIGN(auto rebuilt, ExtentAllocator::Rebuild(kFiles, owned));
    EXPECT_EQ(rebuilt->FreeExtents(), oracle_.Free());
  }

  Oracle oracle_;
  ExtentAllocator allocator_;
  std::mt19937_64 random_;
  std::vector<Held> held_;
};

TEST_F(OracleTest, RandomOperationsAgree) {
  const uint64_t operations = testing::Scaled(kOperations);
  SCOPED_TRACE(::testing::Message() << "seed " << testing::Seed(0));
  testing::ReportTried(operations, testing::Seed(0));
  for (uint64_t i = 0; i < operations && !HasFailure(); ++i) {
    const uint64_t choice = Below(100);
    if (choice < 30) {
      ReserveSome();
    } else if (choice < 35) {
      ReserveBatch();
    } else if (choice < 37) {
      ReserveRange();
    } else if (choice < 40) {
      MoveFillMark();
    } else {
      MoveSome();
    }
    EXPECT_EQ(allocator_.totals(), oracle_.counters()) << "operation " << i;
    if (i % kOperationsPerFullCompare == 0) CompareAll();
  }
  CompareAll();
}

}  // namespace
}  // namespace tensorshelf
