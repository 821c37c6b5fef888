#include "python/aio/staged_blocks.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "engine/foundation/status_macros.h"
#include "engine/plan.h"

namespace tensorshelf {
namespace {

// Blocks of one device read in flight at once; each holds a staging buffer.
constexpr size_t kReadAhead = 8;

// A run of a tensor's bytes. It lies in its staging buffer as it lies in its page of the file, so that the pages of its
// middle go straight from the buffer.
struct StagedBlock {
  uint64_t begin = 0;  // bytes, in the tensor
  uint64_t length = 0;
  uint64_t file_offset = 0;
  std::byte* buffer = nullptr;

  std::byte* memory() const { return buffer + file_offset % kUnitSize; }
};

// Ends at multiples of the buffer size in the file.
StagedBlock NextBlock(const AioRequest& request, uint64_t begin, uint64_t buffer_size) {
  const uint64_t file_offset = request.offset + begin;
  const uint64_t room = buffer_size - file_offset % buffer_size;
  return {.begin = begin, .length = std::min(room, request.size() - begin), .file_offset = file_offset};
}

// The block's bytes of a tensor, as a tensor of bytes.
at::Tensor BytesOfBlock(const at::Tensor& contiguous, const StagedBlock& block) {
  return contiguous.view({-1}).view(at::kByte).narrow(0, static_cast<int64_t>(block.begin),
                                                      static_cast<int64_t>(block.length));
}

at::Tensor AsTensor(const StagedBlock& block) {
  return at::from_blob(block.memory(), {static_cast<int64_t>(block.length)}, at::TensorOptions().dtype(at::kByte));
}

void CopyOut(const at::Tensor& contiguous, const StagedBlock& block) {
  if (contiguous.is_cpu()) {
    std::memcpy(block.memory(), static_cast<const std::byte*>(contiguous.const_data_ptr()) + block.begin, block.length);
    return;
  }
  AsTensor(block).copy_(BytesOfBlock(contiguous, block));
}

Batch BatchOf(const Operation& operation, const StagedBlock& block) {
  Batch batch;
  batch.kind = operation.request().kind;
  batch.segments.push_back({.file = &operation.file(),
                            .offset = block.file_offset,
                            .memory = block.memory(),
                            .length = block.length,
                            .edge = SegmentEdge::kExact});
  return batch;
}

}  // namespace

void WriteStaged(IoEngine& engine, StagingArena& arena, Operation& operation, const at::Tensor& contiguous) {
  const c10::NoGradGuard no_grad;
  for (uint64_t begin = 0; begin < operation.request().size();) {
    StagedBlock block = NextBlock(operation.request(), begin, arena.buffer_size());
    block.buffer = arena.Take();
    CopyOut(contiguous, block);
    Batch batch = BatchOf(operation, block);
    batch.done = [&operation, &arena, buffer = block.buffer](const BatchResult& result) {
      arena.GiveBack(buffer);
      operation.End(result.status);
    };
    operation.Begin();
    engine.Submit(std::move(batch));
    begin += block.length;
  }
}

absl::Status ReadStaged(IoEngine& engine, StagingArena& arena, Operation& operation, const at::Tensor& contiguous) {
  struct InFlight {
    StagedBlock block;
    BatchResult result;
    absl::Notification done;
  };
  const c10::NoGradGuard no_grad;
  std::deque<std::unique_ptr<InFlight>> in_flight;
  absl::Status status;
  uint64_t begin = 0;
  const auto start_one = [&] {
    auto next = std::make_unique<InFlight>();
    next->block = NextBlock(operation.request(), begin, arena.buffer_size());
    // Waiting for a buffer with some of ours in use would be a way to lock each other out.
    next->block.buffer = in_flight.empty() ? arena.Take() : arena.TryTake();
    if (next->block.buffer == nullptr) return false;
    begin += next->block.length;
    Batch batch = BatchOf(operation, next->block);
    batch.done = [raw = next.get()](const BatchResult& result) {
      raw->result = result;
      raw->done.Notify();
    };
    in_flight.push_back(std::move(next));
    engine.Submit(std::move(batch));
    return true;
  };
  while (!in_flight.empty() || (status.ok() && begin < operation.request().size())) {
    while (status.ok() && begin < operation.request().size() && in_flight.size() < kReadAhead && start_one()) {
    }
    InFlight& first = *in_flight.front();
    first.done.WaitForNotification();
    if (status.ok()) status = first.result.status;
    if (status.ok()) BytesOfBlock(contiguous, first.block).copy_(AsTensor(first.block));
    arena.GiveBack(first.block.buffer);
    in_flight.pop_front();
  }
  return status;
}

}  // namespace tensorshelf
