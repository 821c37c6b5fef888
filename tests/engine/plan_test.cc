// Goal: every byte of every segment is in exactly one transfer that the device accepts and that touches nothing else.
// Method: worked examples for each rule of engine/plan.h, then random batches whose plans are checked against the
// rules.

#include "engine/plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/testing/memory_disk.h"
#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kKiB = 1024;
constexpr uint64_t kMiB = 1024 * kKiB;

// Addresses that a plan looks at and never follows.
std::byte* Aligned(uint64_t offset = 0) { return reinterpret_cast<std::byte*>(uintptr_t{1} << 40) + offset; }
std::byte* Odd(uint64_t offset = 0) { return Aligned(offset) + 64; }

class PlanTest : public ::testing::Test {
 protected:
  std::unique_ptr<File> Open(IoAlignment alignment) {
    testing::MemoryDisk disk({.alignment = alignment});
    auto file = disk.Open("/file", {.writable = true, .create = true, .direct = alignment.direct});
    EXPECT_OK(file);
    return *std::move(file);
  }

  Segment Own(uint64_t offset, std::byte* memory, uint64_t length) {
    return {.file = file_.get(), .offset = offset, .memory = memory, .length = length};
  }
  Segment Exact(uint64_t offset, std::byte* memory, uint64_t length) {
    return {.file = file_.get(), .offset = offset, .memory = memory, .length = length, .edge = SegmentEdge::kExact};
  }
  Segment WithSums(Segment segment, uint32_t sum_block = 65536) {
    segment.sums = &sum_;
    segment.sum_block = sum_block;
    return segment;
  }

  // "route offset+length" of each block, in order.
  static std::vector<std::string> Shape(const IoPlan& plan) {
    std::vector<std::string> shape;
    for (const IoBlock& block : plan.blocks) {
      const char* route = block.route == BlockRoute::kInPlace  ? "in place "
                          : block.route == BlockRoute::kStaged ? "staged "
                                                               : "cached ";
      shape.push_back(route + std::to_string(block.offset) + "+" + std::to_string(block.length));
    }
    return shape;
  }

  std::unique_ptr<File> file_ = Open({.memory = 512, .offset = 512});
  PlanOptions options_;
  Sum128 sum_;
};

using Shapes = std::vector<std::string>;

TEST_F(PlanTest, LargeSegmentIsCutFromItsStart) {
  const Segment segments[] = {Own(8192, Aligned(), 2 * kMiB + 512 * kKiB)};
  const IoPlan plan = MakePlan(IoKind::kWrite, segments, options_);
  EXPECT_EQ(Shape(plan), (Shapes{"in place 8192+1048576", "in place 1056768+1048576", "in place 2105344+524288"}));
  EXPECT_EQ(plan.small_count, 0);
}

TEST_F(PlanTest, UnalignedMemoryIsStaged) {
  const Segment segments[] = {Own(0, Odd(), kMiB + 100)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kRead, segments, options_)), (Shapes{"staged 0+1048576", "staged 1048576+4096"}));
}

TEST_F(PlanTest, OddEndOfAWriteIsStagedSoThatItsUnitEndsInZeros) {
  const Segment segments[] = {Own(0, Aligned(), 500 * kKiB + 512)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kWrite, segments, options_)), (Shapes{"in place 0+512000", "staged 512000+4096"}));
  // With sums the cut falls between two sum blocks: 500 KiB are 7 of them and a part.
  const Segment summed[] = {WithSums(Own(0, Aligned(), 500 * kKiB + 512))};
  const IoPlan plan = MakePlan(IoKind::kWrite, summed, options_);
  EXPECT_EQ(Shape(plan), (Shapes{"in place 0+458752", "staged 458752+57344"}));
  EXPECT_TRUE(plan.loose_sums.empty());
}

TEST_F(PlanTest, OddEndOfAReadStaysInPlaceWhenTheDeviceCanDoIt) {
  const Segment segments[] = {Own(0, Aligned(), 500 * kKiB + 512)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kRead, segments, options_)), (Shapes{"in place 0+512512"}));
  const Segment odd[] = {Own(0, Aligned(), 500 * kKiB + 511)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kRead, odd, options_)), (Shapes{"in place 0+512000", "staged 512000+4096"}));
}

TEST_F(PlanTest, SmallSegmentsThatTouchAreGathered) {
  // In any order; the third begins one unit after the second ends, the fourth touches it.
  const Segment segments[] = {Own(8192, Odd(), 5000), Own(0, Odd(), 4097), Own(20480, Odd(), 1), Own(24576, Odd(), 10)};
  const IoPlan plan = MakePlan(IoKind::kWrite, segments, options_);
  EXPECT_EQ(Shape(plan), (Shapes{"staged 0+16384", "staged 20480+8192"}));
  EXPECT_EQ(plan.small_count, 2);
  const auto pieces = plan.PiecesOf(plan.blocks[0]);
  ASSERT_EQ(pieces.size(), 2);
  EXPECT_EQ(pieces[0].segment, 1);
  EXPECT_EQ(pieces[1].segment, 0);
  EXPECT_EQ(pieces[1].block_offset, 8192);
  EXPECT_EQ(plan.blocks[0].needed, 8192 + 5000);
}

TEST_F(PlanTest, ReadsAreGatheredOverSmallGapsAndOverlaps) {
  const Segment segments[] = {Own(0, Odd(), 4096), Own(4096 + 16 * kKiB, Odd(), 4096),
                              Own(4096 + 16 * kKiB, Odd(), 100), Own(8192 + 36 * kKiB, Odd(), 4096)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kRead, segments, options_)), (Shapes{"staged 0+24576", "staged 45056+4096"}));
}

TEST_F(PlanTest, GatheredBlocksEndAtIoSize) {
  std::vector<Segment> segments;
  for (uint64_t i = 0; i < 20; ++i) segments.push_back(Own(i * 64 * kKiB, Odd(), 64 * kKiB));
  EXPECT_EQ(Shape(MakePlan(IoKind::kRead, segments, options_)), (Shapes{"staged 0+1048576", "staged 1048576+262144"}));
}

TEST_F(PlanTest, SmallSegmentsThatNeedNoCopyAreNotGathered) {
  const Segment segments[] = {Own(0, Aligned(), 64 * kKiB), Own(64 * kKiB, Aligned(), 64 * kKiB)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kWrite, segments, options_)), (Shapes{"in place 0+65536", "in place 65536+65536"}));
}

TEST_F(PlanTest, SegmentsOfTwoFilesAreNotGathered) {
  const auto other = Open({.memory = 512, .offset = 512});
  Segment elsewhere = Own(4096, Odd(), 4096);
  elsewhere.file = other.get();
  const Segment segments[] = {Own(0, Odd(), 4096), elsewhere};
  EXPECT_EQ(MakePlan(IoKind::kWrite, segments, options_).blocks.size(), 2);
}

TEST_F(PlanTest, ExactSegmentKeepsItsEdgesInThePageCache) {
  const Segment segments[] = {Exact(100, Aligned(100), 16384)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kWrite, segments, options_)),
            (Shapes{"cached 100+3996", "in place 4096+12288", "cached 16384+100"}));
  // Whole sectors are not enough: the rest of the page may be another segment's.
  const Segment sectors[] = {Exact(512, Aligned(512), 1024)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kWrite, sectors, options_)), (Shapes{"cached 512+1024"}));
  // A short one over a page border: one piece in each page.
  const Segment border[] = {Exact(4000, Odd(), 200)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kRead, border, options_)), (Shapes{"cached 4000+96", "cached 4096+104"}));
}

TEST_F(PlanTest, ExactSegmentWithSumsLeavesTheCutSumBlocksLoose) {
  const Segment segments[] = {WithSums(Exact(0, Aligned(), 128 * kKiB + 10)),
                              WithSums(Exact(1, Aligned(1), 128 * kKiB))};
  const IoPlan plan = MakePlan(IoKind::kRead, segments, options_);
  ASSERT_EQ(plan.loose_sums.size(), 2);
  // The first segment is cut only where its last sum block begins. The second after 4095 bytes and 4095 before its
  // end...
  EXPECT_EQ(plan.loose_sums[0].segment, 1);
  EXPECT_EQ(plan.loose_sums[0].index, 0);
  EXPECT_EQ(plan.loose_sums[1].segment, 1);
  EXPECT_EQ(plan.loose_sums[1].index, 1);
}

TEST_F(PlanTest, BufferedFileTakesAnythingInPlace) {
  file_ = Open({.memory = 1, .offset = 1, .direct = false});
  const Segment segments[] = {Exact(100, Odd(3), kMiB + 5)};
  EXPECT_EQ(Shape(MakePlan(IoKind::kWrite, segments, options_)),
            (Shapes{"in place 100+1048576", "in place 1048676+5"}));
}

TEST_F(PlanTest, SmallBlocksComeFirst) {
  const Segment segments[] = {Own(0, Aligned(), kMiB), Own(2 * kMiB, Aligned(), 4096)};
  const IoPlan plan = MakePlan(IoKind::kRead, segments, options_);
  EXPECT_EQ(Shape(plan), (Shapes{"in place 2097152+4096", "in place 0+1048576"}));
  EXPECT_EQ(plan.small_count, 1);
}

TEST_F(PlanTest, RefusesSegmentsThatBreakTheContract) {
  const auto code = absl::StatusCode::kInvalidArgument;
  EXPECT_FAILS(CheckSegment(Segment{}), code, "without a file");
  EXPECT_FAILS(CheckSegment(Own(512, Aligned(), 1)), code, "not a multiple of 4096");
  EXPECT_FAILS(CheckSegment(Own(0, nullptr, 1)), code, "no memory");
  EXPECT_FAILS(CheckSegment(Own(uint64_t{1} << 62, Aligned(), uint64_t{1} << 62)), code, "largest file offset");
  EXPECT_FAILS(CheckSegment(WithSums(Own(0, Aligned(), 1), 5000)), code, "power of two");
  EXPECT_FAILS(CheckSegment(WithSums(Own(0, Aligned(), 1), 2048)), code, "power of two");
  EXPECT_OK(CheckSegment(Own(0, nullptr, 0)));
  EXPECT_OK(CheckSegment(Exact(513, Odd(1), 7)));
  file_ = Open({.memory = 512, .offset = 16384});
  EXPECT_FAILS(CheckSegment(Own(0, Aligned(), 1)), code, "multiples of 16384");
}

// The rules, for one plan.
class PlanChecker {
 public:
  PlanChecker(IoKind kind, const std::vector<Segment>& segments, const PlanOptions& options)
      : kind_(kind), segments_(segments), options_(options), plan_(MakePlan(kind, segments, options)) {}

  void Check() {
    for (size_t i = 0; i < plan_.blocks.size(); ++i) {
      CheckBlock(plan_.blocks[i]);
      for (const IoPiece& piece : plan_.PiecesOf(plan_.blocks[i])) {
        EXPECT_EQ(segments_[piece.segment].length < options_.small_size, i < plan_.small_count);
      }
    }
    for (size_t i = 0; i < segments_.size(); ++i) CheckCovered(i);
    if (kind_ == IoKind::kWrite) CheckWrites();
  }

 private:
  void CheckBlock(const IoBlock& block) {
    const IoAlignment alignment = block.file->alignment();
    EXPECT_LE(block.length, options_.io_size);
    EXPECT_LE(block.needed, block.length);
    uint64_t end = 0;
    for (const IoPiece& piece : plan_.PiecesOf(block)) {
      const Segment& segment = segments_[piece.segment];
      EXPECT_EQ(segment.file, block.file);
      EXPECT_EQ(segment.offset + piece.segment_offset, block.offset + piece.block_offset);
      end = std::max<uint64_t>(end, piece.block_offset + piece.length);
      runs_[piece.segment].push_back({piece.segment_offset, piece.segment_offset + piece.length});
    }
    EXPECT_EQ(end, block.needed);
    if (block.route == BlockRoute::kPageCache) {
      EXPECT_EQ(block.offset / kUnitSize, (block.offset + block.length - 1) / kUnitSize);
    } else if (alignment.direct) {
      EXPECT_EQ(block.offset % alignment.offset, 0);
      EXPECT_EQ(block.length % alignment.offset, 0);
    }
    if (block.route == BlockRoute::kStaged) return;
    const IoPiece& piece = plan_.PiecesOf(block).front();
    EXPECT_EQ(block.piece_count, 1);
    EXPECT_EQ(block.needed, block.length);
    const auto address = reinterpret_cast<uintptr_t>(segments_[piece.segment].memory + piece.segment_offset);
    if (block.route == BlockRoute::kInPlace && alignment.direct) {
      EXPECT_EQ(address % alignment.memory, 0);
    }
  }

  void CheckCovered(size_t index) {
    const Segment& segment = segments_[index];
    auto& runs = runs_[index];
    std::sort(runs.begin(), runs.end());
    uint64_t covered = 0;
    for (const auto& [begin, end] : runs) {
      EXPECT_EQ(begin, covered) << "segment " << index;
      covered = end;
    }
    EXPECT_EQ(covered, segment.length) << "segment " << index;
    if (segment.sums == nullptr) return;
    std::multiset<uint64_t> loose;
    for (const LooseSum& sum : plan_.loose_sums) {
      if (sum.segment == index) loose.insert(sum.index);
    }
    for (uint64_t i = 0; i * segment.sum_block < segment.length; ++i) {
      const uint64_t end = std::min((i + 1) * segment.sum_block, segment.length);
      const bool whole = std::any_of(runs.begin(), runs.end(), [&](const auto& run) {
        return run.first <= i * segment.sum_block && end <= run.second;
      });
      EXPECT_EQ(loose.count(i), whole ? 0 : 1) << "segment " << index << " sum " << i;
    }
  }

  // The segments of a batch of writes do not overlap, so neither may the transfers, and each covers what it owns
  // exactly.
  void CheckWrites() {
    std::map<uint64_t, uint64_t> written;
    for (const IoBlock& block : plan_.blocks) {
      EXPECT_TRUE(written.emplace(block.offset, block.offset + block.length).second);
    }
    std::map<uint64_t, uint64_t> allowed;
    for (const Segment& segment : segments_) {
      if (segment.length == 0) continue;
      uint64_t end = segment.offset + segment.length;
      if (segment.edge == SegmentEdge::kOwnsUnit) end = (end + kUnitSize - 1) / kUnitSize * kUnitSize;
      allowed.emplace(segment.offset, end);
    }
    EXPECT_EQ(Merged(written), Merged(allowed));
  }

  static std::vector<std::pair<uint64_t, uint64_t>> Merged(const std::map<uint64_t, uint64_t>& ranges) {
    std::vector<std::pair<uint64_t, uint64_t>> merged;
    for (const auto& [begin, end] : ranges) {
      EXPECT_TRUE(merged.empty() || merged.back().second <= begin) << "two transfers overlap at " << begin;
      if (!merged.empty() && merged.back().second == begin) {
        merged.back().second = end;
      } else {
        merged.emplace_back(begin, end);
      }
    }
    return merged;
  }

  const IoKind kind_;
  const std::vector<Segment>& segments_;
  const PlanOptions options_;
  const IoPlan plan_;
  std::map<size_t, std::vector<std::pair<uint64_t, uint64_t>>> runs_;  // by segment: begin, end of pieces
};

TEST_F(PlanTest, RandomBatchesKeepTheRules) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    const auto below = [&](uint64_t limit) { return random() % limit; };
    const uint32_t steps[] = {512, 4096, 1};
    const uint32_t step = steps[below(3)];
    file_ = Open({.memory = step, .offset = step, .direct = step > 1});
    PlanOptions options{.io_size = 4096u << below(6), .small_size = 0};
    options.small_size = below(options.io_size + 1);
    const IoKind kind = below(2) == 0 ? IoKind::kRead : IoKind::kWrite;
    const bool exact = below(2) == 0;

    std::vector<Segment> segments;
    uint64_t offset = 0;
    for (uint64_t count = below(20); count > 0; --count) {
      const uint64_t lengths[] = {below(5000), 4096 * below(30), 512 * below(300), below(200000), 0};
      Segment segment = exact ? Exact(offset, nullptr, 0) : Own(offset, nullptr, 0);
      segment.length = lengths[below(5)];
      segment.memory = Aligned(below(2) * 4096 + below(2) * 512 * below(8) + (below(3) == 0 ? below(600) : 0));
      if (below(2) == 0) segment = WithSums(segment, 4096u << below(9));
      ASSERT_OK(CheckSegment(segment));
      segments.push_back(segment);
      offset += segment.length;
      if (below(2) == 0) offset += below(40000);
      if (!exact) offset = (offset + kUnitSize - 1) / kUnitSize * kUnitSize;
    }
    std::shuffle(segments.begin(), segments.end(), random);
    PlanChecker(kind, segments, options).Check();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace tensorshelf
