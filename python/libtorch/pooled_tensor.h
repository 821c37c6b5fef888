// New tensors whose memory comes from a MemoryPool: huge pages, recycled, and transferred to and from the device
// without a copy.

#ifndef TENSORSHELF_PYTHON_LIBTORCH_POOLED_TENSOR_H_
#define TENSORSHELF_PYTHON_LIBTORCH_POOLED_TENSOR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/memory.h"

namespace tensorshelf {

// Results of this size and more come from the pool; smaller ones from torch's allocator, where they never take a huge
// page.
inline constexpr uint64_t kPooledBytesMin = uint64_t{1} << 20;

// Whether the torch in this process has the store's dtype of that number.
bool TorchHasDtype(uint16_t dtype);

// An uninitialised CPU tensor in C order in memory of `pool`, which takes the memory back when the last view of the
// tensor dies; the pool may be gone by then. In a forked child the memory stays readable and is not given back.
// `touched`, if not null, receives whether the memory has been faulted in before. Unimplemented: this torch lacks the
// dtype.
absl::StatusOr<at::Tensor> NewAlignedTensor(MemoryPool& pool, uint16_t dtype, std::span<const uint64_t> shape,
                                            bool* touched = nullptr);

// Makes the result tensors of one read. Confined to one thread.
class ResultTensors {
 public:
  explicit ResultTensors(MemoryPool& pool) : pool_(pool) {}

  // Uninitialised, on the CPU, in C order. It owns its memory.
  absl::StatusOr<at::Tensor> New(uint16_t dtype, std::span<const uint64_t> shape);

  // Faults the fresh ones of the tensors made so far in on another thread, in their order, so that the faults happen
  // while the disk works. They must stay alive as long as the ticket.
  std::shared_ptr<void> FaultInBehind() { return fresh_.empty() ? nullptr : pool_.FaultInBehind(fresh_); }

 private:
  MemoryPool& pool_;
  std::vector<std::span<std::byte>> fresh_;
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_LIBTORCH_POOLED_TENSOR_H_
