// Cuts and joins: a list of segments becomes a list of blocks, each one transfer. Pure arithmetic, no I/O.
//
//   large segment     [=========|=========|====]   cut at multiples of io_size counted from the segment's start, so
//   that a
//                                                  sum block (which divides io_size) never straddles two transfers
//   small segments    [==][=][===]                 that touch in the file are gathered into one staged block
//   exact segment     ..|=|=========|==|..         whole pages go direct, the rest of the first and last page through
//   the
//                                                  page cache
//
// Why an exact segment is cut at pages and not at the device's 512-byte sectors: the kernel keeps the page cache and
// direct transfers apart by page. A direct write first writes back and drops the cached pages that it touches, and
// drops them again when it is done. Were the sectors of one page written both ways at once, the buffered write could
// fetch the page before the direct write lands, dirty it, and later write the stale sectors back over the new ones; the
// second drop fails on a dirty page and the kernel can only complain. With pages as the border, a page is either the
// middle of one segment, whole, and goes direct; or it is shared by the edges of segments, and all of these go through
// the page cache, where the kernel changes exactly the bytes that it is given, also between engines and processes that
// know nothing of each other. Neither is a read-modify-write of ours.

#ifndef TENSORSHELF_ENGINE_PLAN_H_
#define TENSORSHELF_ENGINE_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "engine/io_engine.h"

namespace tensorshelf {

// The allocation unit of data files and the page of the page cache, bytes.
inline constexpr uint64_t kUnitSize = 4096;

struct PlanOptions {
  uint64_t io_size = uint64_t{1} << 20;       // bytes, a multiple of 4096: the longest block
  uint64_t small_size = uint64_t{256} << 10;  // bytes, at most io_size: below it a segment is small
};

// How the bytes of a block travel.
enum class BlockRoute : uint8_t {
  kInPlace,    // one piece, straight between its memory and the device
  kStaged,     // through a staging buffer
  kPageCache,  // one piece within one page, by File::PReadCached or PWriteCached
};

// A run of one segment's bytes inside a block.
struct IoPiece {
  uint32_t segment = 0;         // index in the batch
  uint32_t block_offset = 0;    // bytes, in the block
  uint64_t segment_offset = 0;  // bytes, in the segment
  uint32_t length = 0;          // bytes
};

// One transfer.
struct IoBlock {
  File* file = nullptr;
  uint64_t offset = 0;  // bytes, in the file
  uint32_t length = 0;  // bytes to transfer: with the padding of a write, with what a read fetches and drops
  uint32_t needed = 0;  // bytes until the end of the last piece; a read may stop there (end of file)
  BlockRoute route = BlockRoute::kStaged;
  uint32_t first_piece = 0;
  uint32_t piece_count = 0;
};

// A sum block of which no single piece has all the bytes: it is hashed from the segment's memory, when that is
// complete.
struct LooseSum {
  uint32_t segment = 0;
  uint64_t index = 0;  // in Segment::sums
};

struct IoPlan {
  std::vector<IoBlock> blocks;  // the small ones first
  size_t small_count = 0;
  std::vector<IoPiece> pieces;
  std::vector<LooseSum> loose_sums;

  std::span<const IoPiece> PiecesOf(const IoBlock& block) const {
    return std::span(pieces).subspan(block.first_piece, block.piece_count);
  }
};

// InvalidArgument when a segment breaks what io_engine.h asks of it.
absl::Status CheckSegment(const Segment& segment);

// The segments have passed CheckSegment.
IoPlan MakePlan(IoKind kind, std::span<const Segment> segments, const PlanOptions& options);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_PLAN_H_
