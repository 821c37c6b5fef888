#include "engine/block_steps.h"

#include <span>

#include "absl/time/clock.h"
#include "engine/block_bytes.h"

namespace tensorshelf {
namespace {

// A pause that a busy device gets before it is asked again.
constexpr absl::Duration kBusyPause = absl::Milliseconds(1);

// Copying or hashing this many bytes takes longer than a system call.
constexpr uint32_t kHeavyLength = uint32_t{64} << 10;

int64_t MoveOnce(EngineContext& context, const BatchState& batch, const IoBlock& block, const IoOp& op) {
  const bool cached = block.route == BlockRoute::kPageCache;
  context.counters.CountSubmitted(op.kind);
  const uint64_t submitted_ns = SteadyNanoseconds();
  int64_t moved = 0;
  if (op.kind == IoKind::kRead) {
    const std::span<std::byte> to(op.memory, op.length);
    moved = cached ? op.file->PReadCached(op.offset, to) : op.file->PRead(op.offset, to);
  } else {
    const std::span<const std::byte> from(op.memory, op.length);
    moved = cached ? op.file->PWriteCached(op.offset, from) : op.file->PWrite(op.offset, from);
  }
  const uint64_t ended_ns = SteadyNanoseconds();
  context.counters.CountReaped(op.kind, ended_ns - submitted_ns);
  if (context.tracing()) context.Trace(op, batch.queued_ns(), submitted_ns, ended_ns, moved);
  return moved;
}

}  // namespace

std::byte* PrepareBlock(const BatchState& batch, const IoBlock& block, std::byte* buffer) {
  if (buffer != nullptr) {
    if (batch.kind() == IoKind::kWrite) FillBuffer(batch, block, buffer);
    return buffer;
  }
  if (batch.kind() == IoKind::kWrite) HashInPlace(batch, block);
  const IoPiece& piece = batch.plan().PiecesOf(block).front();
  return batch.segment(piece.segment).memory + piece.segment_offset;
}

bool PrepareIsHeavy(const BatchState& batch, const IoBlock& block) {
  if (block.route == BlockRoute::kPageCache) return true;
  return batch.kind() == IoKind::kWrite && block.length >= kHeavyLength &&
         (block.route == BlockRoute::kStaged || HasSums(batch, block));
}

bool ConcludeIsHeavy(const BatchState& batch, const IoBlock& block) {
  if (block.length < kHeavyLength) return false;
  if (block.route == BlockRoute::kStaged) return batch.kind() == IoKind::kRead;
  return HasSums(batch, block);
}

void ConcludeBlock(EngineContext& context, BatchState& batch, const IoBlock& block, std::byte* buffer,
                   const Transfer& transfer) {
  context.counters.CountMoved(batch.kind(), transfer.moved(), buffer != nullptr);
  if (!transfer.status().ok()) {
    context.counters.CountFailed();
    batch.Fail(block, transfer.moved(), transfer.status());
    return;
  }
  if (batch.failed()) return;
  if (batch.kind() == IoKind::kRead) {
    if (buffer != nullptr) {
      DrainBuffer(batch, block, buffer);
    } else {
      HashInPlace(batch, block);
    }
    return;
  }
  if (buffer != nullptr) return;
  if (absl::Status unchanged = CheckUnchanged(batch, block); !unchanged.ok()) batch.Fail(block, 0, unchanged);
}

void MoveBlockHere(EngineContext& context, BatchState& batch, const IoBlock& block, std::byte* buffer) {
  Transfer transfer(batch.kind(), block, PrepareBlock(batch, block, buffer), context.retry_deadline());
  for (bool over = false; !over;) {
    switch (transfer.Take(MoveOnce(context, batch, block, *transfer.op()))) {
      case Transfer::Next::kAgainLater:
        absl::SleepFor(kBusyPause);
        [[fallthrough]];
      case Transfer::Next::kAgain:
        context.counters.CountResubmitted();
        break;
      case Transfer::Next::kDone:
      case Transfer::Next::kFailed:
        over = true;
        break;
    }
  }
  ConcludeBlock(context, batch, block, buffer, transfer);
}

}  // namespace tensorshelf
