// Parts of stored tensors as new tensors, or into given ones; many in one submission.

#ifndef TENSORSHELF_PYTHON_LIBTORCH_SLICE_READ_H_
#define TENSORSHELF_PYTHON_LIBTORCH_SLICE_READ_H_

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "python/libtorch/slice_plan.h"
#include "python/libtorch/tensor_io.h"
#include "store/store.h"

namespace tensorshelf {

struct SliceRequest {
  const Object* object = nullptr;  // a tensor whose dtype this torch has (CheckTensorObject)
  SlicePlan plan;
  at::Tensor out;  // undefined: a new tensor; else one of the plan's result_shape and the object's dtype
};

// The parts, in order of the requests: what went into `out`, or new tensors that own exactly their memory.
// InvalidArgument, before anything is read: an `out` of another dtype or shape. `read` is called once.
absl::StatusOr<std::vector<at::Tensor>> ReadSlices(MemoryPool& pool, std::span<const SliceRequest> requests,
                                                   const ReadFunction& read);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_LIBTORCH_SLICE_READ_H_
