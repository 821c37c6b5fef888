// Page-locked tensors that the caller frees by hand: what new_cpu_locked_tensor of aio_handle and pin_handle makes.
//
// One registry for the process, so what one handle locks every other one knows. An allocation is *live* from its making
// until it is freed; its memory stays mapped until it is freed and no tensor, view or transfer refers to it any more,
// so freeing too early harms nobody.

#ifndef TENSORSHELF_PYTHON_AIO_LOCKED_MEMORY_H_
#define TENSORSHELF_PYTHON_AIO_LOCKED_MEMORY_H_

#include <ATen/core/Tensor.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "engine/memory.h"

namespace tensorshelf {

// Thread-safe. Never destroyed: tensors refer to it.
class LockedMemory {
 public:
  // Who an allocation belongs to: when that one is gone, memory that nobody freed and nobody uses is given back.
  using Owner = const void*;

  LockedMemory() = default;

  // A 1-D tensor on the CPU, zeroed, its memory page-aligned, locked and faulted in. InvalidArgument: a negative or
  // absurd count. ResourceExhausted: RLIMIT_MEMLOCK or the memory is used up; nothing is locked then.
  absl::StatusOr<at::Tensor> NewTensor(int64_t element_count, at::ScalarType type, Owner owner);

  // False unless `address` is the first byte of a live allocation.
  bool Free(const void* address);

  // Whether all of [address, address + size) lies in one live allocation.
  bool Covers(const void* address, size_t size) const;

  // Allocations of `owner` that were not freed live on as long as their tensors.
  void Disown(Owner owner);

 private:
  // What tensors hold.
  struct Piece {
    MappedRegion region;
    const pid_t process = ::getpid();
  };
  struct Allocation {
    std::shared_ptr<Piece> kept;  // null once disowned
    size_t size = 0;
    Owner owner = nullptr;
  };
  using Allocations = std::map<uintptr_t, Allocation>;  // by first address

  void LetGo(std::shared_ptr<Piece> piece);

  mutable absl::Mutex mutex_;
  Allocations live_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_AIO_LOCKED_MEMORY_H_
