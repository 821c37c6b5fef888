#include "engine/block_bytes.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/streaming_copy.h"

namespace tensorshelf {
namespace {

// Bytes that are copied and then hashed in one go: two such runs fit the first-level caches' neighbour, the second
// level.
constexpr uint64_t kRunSize = uint64_t{64} << 10;

// A segment of this many bytes is larger than what the second level keeps: nobody finds its beginning there afterwards.
constexpr uint64_t kStreamedLength = uint64_t{512} << 10;

void CopyThroughCaches(std::byte* to, const std::byte* from, uint64_t length) { std::memcpy(to, from, length); }

struct Run {
  uint64_t begin = 0;  // bytes, in the segment
  uint64_t end = 0;
};

// The piece in runs that end at multiples of kRunSize, or of the sum block where that is longer, counted from the start
// of the segment: a sum block never lies in two runs.
template <typename Step>
void ForEachRun(const Segment& segment, const IoPiece& piece, const Step& step) {
  const uint64_t run_size = segment.sums == nullptr ? kRunSize : std::max<uint64_t>(kRunSize, segment.sum_block);
  const uint64_t end = piece.segment_offset + piece.length;
  for (uint64_t begin = piece.segment_offset; begin < end;) {
    const uint64_t run_end = std::min((begin / run_size + 1) * run_size, end);
    step(Run{begin, run_end});
    begin = run_end;
  }
}

// Calls step(sum index, bytes) for every sum block that lies in the run as a whole; `bytes` are those of the run.
template <typename Step>
void ForEachSumBlock(const Segment& segment, const Run& run, const std::byte* bytes, const Step& step) {
  if (segment.sums == nullptr) return;
  const uint64_t size = segment.sum_block;
  for (uint64_t i = (run.begin + size - 1) / size; i * size < run.end; ++i) {
    const uint64_t end = std::min((i + 1) * size, segment.length);
    if (end > run.end) return;
    step(i, std::span(bytes + (i * size - run.begin), end - i * size));
  }
}

void HashRun(const Segment& segment, const Run& run, const std::byte* bytes) {
  ForEachSumBlock(segment, run, bytes,
                  [&](uint64_t i, std::span<const std::byte> block) { segment.sums[i] = Hash128(block); });
}

}  // namespace

void FillBuffer(const BatchState& batch, const IoBlock& block, std::byte* buffer) {
  uint64_t filled = 0;
  for (const IoPiece& piece : batch.plan().PiecesOf(block)) {
    const Segment& segment = batch.segment(piece.segment);
    std::memset(buffer + filled, 0, piece.block_offset - filled);
    std::byte* to = buffer + piece.block_offset;
    ForEachRun(segment, piece, [&](const Run& run) {
      std::byte* copy = to + (run.begin - piece.segment_offset);
      std::memcpy(copy, segment.memory + run.begin, run.end - run.begin);
      HashRun(segment, run, copy);
    });
    filled = uint64_t{piece.block_offset} + piece.length;
  }
  std::memset(buffer + filled, 0, block.length - filled);
}

void DrainBuffer(const BatchState& batch, const IoBlock& block, const std::byte* buffer) {
  for (const IoPiece& piece : batch.plan().PiecesOf(block)) {
    const Segment& segment = batch.segment(piece.segment);
    const std::byte* from = buffer + piece.block_offset;
    ForEachRun(segment, piece, [&](const Run& run) {
      const std::byte* bytes = from + (run.begin - piece.segment_offset);
      HashRun(segment, run, bytes);
      const auto copy = segment.length >= kStreamedLength ? StreamingCopy : CopyThroughCaches;
      copy(segment.memory + run.begin, bytes, run.end - run.begin);
    });
  }
}

void HashInPlace(const BatchState& batch, const IoBlock& block) {
  for (const IoPiece& piece : batch.plan().PiecesOf(block)) {
    const Segment& segment = batch.segment(piece.segment);
    const Run whole{piece.segment_offset, piece.segment_offset + piece.length};
    HashRun(segment, whole, segment.memory + whole.begin);
  }
}

absl::Status CheckUnchanged(const BatchState& batch, const IoBlock& block) {
  absl::Status status;
  for (const IoPiece& piece : batch.plan().PiecesOf(block)) {
    const Segment& segment = batch.segment(piece.segment);
    const Run whole{piece.segment_offset, piece.segment_offset + piece.length};
    ForEachSumBlock(segment, whole, segment.memory + whole.begin, [&](uint64_t i, std::span<const std::byte> bytes) {
      if (TS_MUTATE(skip_second_hash)) return;
      if (status.ok() && Hash128(bytes) != segment.sums[i]) status = MemoryChanged(segment, i);
    });
  }
  return status;
}

bool HasSums(const BatchState& batch, const IoBlock& block) {
  const auto pieces = batch.plan().PiecesOf(block);
  return std::any_of(pieces.begin(), pieces.end(),
                     [&](const IoPiece& piece) { return batch.segment(piece.segment).sums != nullptr; });
}

Sum128 HashSumBlock(const Segment& segment, uint64_t index) {
  const uint64_t begin = index * segment.sum_block;
  return Hash128({segment.memory + begin, std::min<uint64_t>(segment.sum_block, segment.length - begin)});
}

absl::Status MemoryChanged(const Segment& segment, uint64_t sum_index) {
  const uint64_t begin = sum_index * segment.sum_block;
  return absl::AbortedError(absl::StrCat("the memory changed while it was written to ", segment.file->path(),
                                         ", offset ", segment.offset + begin, ", ",
                                         std::min<uint64_t>(segment.sum_block, segment.length - begin), " bytes"));
}

}  // namespace tensorshelf
