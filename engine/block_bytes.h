// The processor's part of a block: copies between segments and a staging buffer, and sums, each byte while it is in
// cache.

#ifndef TENSORSHELF_ENGINE_BLOCK_BYTES_H_
#define TENSORSHELF_ENGINE_BLOCK_BYTES_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "engine/batch_state.h"
#include "engine/foundation/hash.h"
#include "engine/io_engine.h"
#include "engine/plan.h"

namespace tensorshelf {

// Write, staged: copies the pieces into `buffer`, hashes the copies (so the sums are those of what goes to the device),
// and writes zeros between and behind them.
void FillBuffer(const BatchState& batch, const IoBlock& block, std::byte* buffer);

// Read, staged: hashes the pieces in `buffer` and copies them to their segments.
void DrainBuffer(const BatchState& batch, const IoBlock& block, const std::byte* buffer);

// In place: hashes the pieces in the segments' memory. Of a write before it is submitted, of a read when it is
// complete.
void HashInPlace(const BatchState& batch, const IoBlock& block);

// Write, in place, complete: Aborted, with file and offset, when a sum is no longer the one that HashInPlace found.
absl::Status CheckUnchanged(const BatchState& batch, const IoBlock& block);

// Whether a piece of the block belongs to a segment with sums.
bool HasSums(const BatchState& batch, const IoBlock& block);

// The sum of one sum block from the segment's memory.
Sum128 HashSumBlock(const Segment& segment, uint64_t index);

absl::Status MemoryChanged(const Segment& segment, uint64_t sum_index);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_BLOCK_BYTES_H_
