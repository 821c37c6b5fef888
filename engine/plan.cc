#include "engine/plan.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

#include "absl/strings/str_cat.h"

namespace tensorshelf {
namespace {

// A read fetches and drops up to this many bytes between two small segments: cheaper than one more transfer.
constexpr uint64_t kReadGapMax = uint64_t{16} << 10;

// A run that can travel in place is neither copied into a gathered block nor staged for the sake of its odd end when it
// has at least this many bytes: copying them costs as much as one more transfer.
constexpr uint64_t kCopyMax = uint64_t{64} << 10;

constexpr uint64_t kOffsetMax = std::numeric_limits<int64_t>::max();

uint64_t RoundDown(uint64_t value, uint64_t step) { return value / step * step; }
uint64_t RoundUp(uint64_t value, uint64_t step) { return RoundDown(value + step - 1, step); }

uint64_t OffsetStep(const File& file) { return file.alignment().direct ? file.alignment().offset : 1; }

bool MemoryFits(const File& file, const std::byte* memory) {
  return !file.alignment().direct || reinterpret_cast<uintptr_t>(memory) % file.alignment().memory == 0;
}

class Planner {
 public:
  Planner(IoKind kind, std::span<const Segment> segments, const PlanOptions& options)
      : kind_(kind), segments_(segments), options_(options) {}

  IoPlan Make() {
    PlanSmall();
    plan_.small_count = plan_.blocks.size();
    for (uint32_t i = 0; i < segments_.size(); ++i) {
      if (segments_[i].length >= options_.small_size && segments_[i].length > 0) PlanAlone(i);
    }
    return std::move(plan_);
  }

 private:
  void PlanSmall() {
    std::vector<uint32_t> owning;
    for (uint32_t i = 0; i < segments_.size(); ++i) {
      const Segment& segment = segments_[i];
      if (segment.length == 0 || segment.length >= options_.small_size) continue;
      if (segment.edge == SegmentEdge::kOwnsUnit) {
        owning.push_back(i);
      } else {
        PlanAlone(i);
      }
    }
    std::sort(owning.begin(), owning.end(), [this](uint32_t a, uint32_t b) {
      const Segment& left = segments_[a];
      const Segment& right = segments_[b];
      if (left.file != right.file) return std::less<File*>()(left.file, right.file);
      return left.offset != right.offset ? left.offset < right.offset : a < b;
    });
    for (size_t begin = 0; begin < owning.size();) begin += Gather(std::span(owning).subspan(begin));
  }

  // One block of the first segment and those after it that it can take; how many that were.
  size_t Gather(std::span<const uint32_t> sorted) {
    const Segment& first = segments_[sorted[0]];
    uint64_t end = first.offset + RoundUp(first.length, kUnitSize);
    size_t count = 1;
    if (!StaysInPlace(first)) {
      for (; count < sorted.size(); ++count) {
        const Segment& next = segments_[sorted[count]];
        const uint64_t next_end = std::max(end, next.offset + RoundUp(next.length, kUnitSize));
        const bool near = kind_ == IoKind::kRead ? next.offset <= end + kReadGapMax : next.offset == end;
        if (next.file != first.file || !near || next_end - first.offset > options_.io_size || StaysInPlace(next)) break;
        end = next_end;
      }
    }
    if (count == 1) {
      AddBlock(sorted[0], 0, first.length, FitsInPlace(first) ? BlockRoute::kInPlace : BlockRoute::kStaged);
      return 1;
    }
    AddGathered(sorted.first(count), end);
    return count;
  }

  void AddGathered(std::span<const uint32_t> members, uint64_t end) {
    const Segment& first = segments_[members[0]];
    IoBlock block{.file = first.file,
                  .offset = first.offset,
                  .length = static_cast<uint32_t>(end - first.offset),
                  .needed = 0,
                  .route = BlockRoute::kStaged,
                  .first_piece = static_cast<uint32_t>(plan_.pieces.size()),
                  .piece_count = static_cast<uint32_t>(members.size())};
    for (const uint32_t member : members) {
      const auto block_offset = static_cast<uint32_t>(segments_[member].offset - first.offset);
      const auto length = static_cast<uint32_t>(segments_[member].length);
      plan_.pieces.push_back({member, block_offset, 0, length});
      block.needed = std::max(block.needed, block_offset + length);
    }
    plan_.blocks.push_back(block);
  }

  // Lengths in place are multiples of this. A write covers the whole last unit with zeros, which takes a copy.
  uint64_t InPlaceStep(const Segment& segment) const {
    const uint64_t step = OffsetStep(*segment.file);
    return kind_ == IoKind::kWrite && segment.edge == SegmentEdge::kOwnsUnit ? kUnitSize : step;
  }

  bool FitsInPlace(const Segment& segment) const {
    return MemoryFits(*segment.file, segment.memory) && segment.length % InPlaceStep(segment) == 0;
  }

  bool StaysInPlace(const Segment& segment) const { return segment.length >= kCopyMax && FitsInPlace(segment); }

  // Blocks of one segment and no other.
  void PlanAlone(uint32_t index) {
    const Segment& segment = segments_[index];
    cut_ = 0;
    if (segment.edge == SegmentEdge::kOwnsUnit || !segment.file->alignment().direct) {
      CutOwn(index, 0, segment.length);
      return;
    }
    const uint64_t file_end = segment.offset + segment.length;
    const uint64_t head_end = std::min(RoundUp(segment.offset, kUnitSize), file_end);
    const uint64_t tail_begin = std::max(RoundDown(file_end, kUnitSize), head_end);
    AddEdge(index, 0, head_end - segment.offset);
    CutOwn(index, head_end - segment.offset, tail_begin - segment.offset);
    AddEdge(index, tail_begin - segment.offset, segment.length);
  }

  void AddEdge(uint32_t index, uint64_t begin, uint64_t end) {
    if (begin < end) AddBlock(index, begin, end, BlockRoute::kPageCache);
  }

  // The bytes [begin, end) of a segment, which start at an aligned file offset.
  void CutOwn(uint32_t index, uint64_t begin, uint64_t end) {
    const Segment& segment = segments_[index];
    while (begin < end) {
      const uint64_t block_end = std::min(begin + options_.io_size, end);
      const uint64_t length = block_end - begin;
      if (!MemoryFits(*segment.file, segment.memory + begin)) {
        AddBlock(index, begin, block_end, BlockRoute::kStaged);
      } else if (length % InPlaceStep(segment) == 0) {
        AddBlock(index, begin, block_end, BlockRoute::kInPlace);
      } else {
        CutOddEnd(index, begin, block_end);
      }
      begin = block_end;
    }
  }

  // [begin, end) has the right memory and the wrong length: the most of it in place, the rest staged, if that saves
  // enough.
  void CutOddEnd(uint32_t index, uint64_t begin, uint64_t end) {
    const Segment& segment = segments_[index];
    uint64_t step = InPlaceStep(segment);
    if (segment.sums != nullptr) step = std::max<uint64_t>(step, segment.sum_block);
    const uint64_t middle = begin + RoundDown(end - begin, step);
    if (middle - begin < kCopyMax) {
      AddBlock(index, begin, end, BlockRoute::kStaged);
      return;
    }
    AddBlock(index, begin, middle, BlockRoute::kInPlace);
    AddBlock(index, middle, end, BlockRoute::kStaged);
  }

  // A block of one piece, the bytes [begin, end) of a segment.
  void AddBlock(uint32_t index, uint64_t begin, uint64_t end, BlockRoute route) {
    const Segment& segment = segments_[index];
    const auto needed = static_cast<uint32_t>(end - begin);
    uint64_t length = needed;
    if (route == BlockRoute::kStaged && segment.edge == SegmentEdge::kOwnsUnit) length = RoundUp(length, kUnitSize);
    plan_.blocks.push_back({.file = segment.file,
                            .offset = segment.offset + begin,
                            .length = static_cast<uint32_t>(length),
                            .needed = needed,
                            .route = route,
                            .first_piece = static_cast<uint32_t>(plan_.pieces.size()),
                            .piece_count = 1});
    plan_.pieces.push_back({index, 0, begin, needed});
    NoteCut(index, begin);
  }

  // A cut inside a sum block leaves that block to be hashed as a whole, once.
  void NoteCut(uint32_t index, uint64_t at) {
    const Segment& segment = segments_[index];
    if (segment.sums == nullptr || at % segment.sum_block == 0) return;
    const uint64_t sum_index = at / segment.sum_block;
    if (cut_ == sum_index + 1) return;
    cut_ = sum_index + 1;
    plan_.loose_sums.push_back({index, sum_index});
  }

  const IoKind kind_;
  const std::span<const Segment> segments_;
  const PlanOptions options_;
  IoPlan plan_;
  uint64_t cut_ = 0;  // 1 + the last loose sum of the segment in work, 0 = none yet
};

}  // namespace

absl::Status CheckSegment(const Segment& segment) {
  if (segment.file == nullptr) return absl::InvalidArgumentError("a segment without a file");
  const std::string where = absl::StrCat(segment.length, " bytes at ", segment.offset, " of ", segment.file->path());
  if (segment.length == 0) return absl::OkStatus();
  if (segment.memory == nullptr) return absl::InvalidArgumentError(absl::StrCat(where, ": no memory"));
  if (segment.offset > kOffsetMax - kUnitSize || segment.length > kOffsetMax - kUnitSize - segment.offset) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": beyond the largest file offset"));
  }
  if (segment.edge == SegmentEdge::kOwnsUnit && segment.offset % kUnitSize != 0) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": the offset is not a multiple of ", kUnitSize));
  }
  if (kUnitSize % OffsetStep(*segment.file) != 0) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": the file system wants direct transfers in multiples of ",
                                                   OffsetStep(*segment.file), " bytes, units have ", kUnitSize));
  }
  if (segment.sums != nullptr && (!std::has_single_bit(segment.sum_block) || segment.sum_block < kUnitSize ||
                                  segment.sum_block > uint32_t{1} << 20)) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": sums over ", segment.sum_block, " bytes, not a power of two between 4096 and 1048576"));
  }
  return absl::OkStatus();
}

IoPlan MakePlan(IoKind kind, std::span<const Segment> segments, const PlanOptions& options) {
  return Planner(kind, segments, options).Make();
}

}  // namespace tensorshelf
