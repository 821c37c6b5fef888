// The steps of a block around its transfer, the same whether a worker's queue or the caller's thread moves the bytes.

#ifndef TENSORSHELF_ENGINE_BLOCK_STEPS_H_
#define TENSORSHELF_ENGINE_BLOCK_STEPS_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "engine/batch_state.h"
#include "engine/engine_context.h"
#include "engine/plan.h"
#include "engine/transfer.h"

namespace tensorshelf {

// Before the transfer: copies and sums of a write. `buffer` is a staging buffer for a staged block, else null. The
// memory that the transfer uses.
std::byte* PrepareBlock(const BatchState& batch, const IoBlock& block, std::byte* buffer);

// Whether PrepareBlock costs more than bookkeeping, so that ready transfers should be submitted before it.
bool PrepareIsHeavy(const BatchState& batch, const IoBlock& block);

// After the transfer: its bytes are counted, failures go to the batch, sums and copies of a read are made. The caller
// then gives the buffer back and calls FinishBlocks.
void ConcludeBlock(EngineContext& context, BatchState& batch, const IoBlock& block, std::byte* buffer,
                   const Transfer& transfer);

// Whether ConcludeBlock costs more than bookkeeping, so that the device should get new transfers before the next one is
// concluded: virtual disks complete what they have in bursts, and would have nothing to do while a burst is copied.
bool ConcludeIsHeavy(const BatchState& batch, const IoBlock& block);

// The whole of a block by calls of its File from this thread, up to but not with FinishBlocks.
void MoveBlockHere(EngineContext& context, BatchState& batch, const IoBlock& block, std::byte* buffer);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_BLOCK_STEPS_H_
