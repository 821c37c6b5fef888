// Tensors that pass through the staging arena a block at a time, by the thread that calls: writes of memory that the
// caller may change as soon as the call is back, and transfers of other devices. While the file works on one block, the
// next one is copied.

#ifndef TENSORSHELF_PYTHON_AIO_STAGED_BLOCKS_H_
#define TENSORSHELF_PYTHON_AIO_STAGED_BLOCKS_H_

#include "absl/status/status.h"
#include "engine/io_engine.h"
#include "engine/memory.h"
#include "python/aio/operation.h"

namespace tensorshelf {

// `contiguous` has the values of the operation's tensor in C order, on any device. Returns when the last block has been
// copied out of it; transfers are still in flight then, and belong to `operation`. Blocks while the arena is empty.
void WriteStaged(IoEngine& engine, StagingArena& arena, Operation& operation, const at::Tensor& contiguous);

// Into `contiguous`. Returns when all bytes are there, with nothing in flight.
absl::Status ReadStaged(IoEngine& engine, StagingArena& arena, Operation& operation, const at::Tensor& contiguous);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_AIO_STAGED_BLOCKS_H_
