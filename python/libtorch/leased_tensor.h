// Tensors that lie in a store's memory tier: no copy, a lease instead.

#ifndef TENSORSHELF_PYTHON_LIBTORCH_LEASED_TENSOR_H_
#define TENSORSHELF_PYTHON_LIBTORCH_LEASED_TENSOR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "store/memory_lease.h"

namespace tensorshelf {

// A CPU tensor in C order over the lease's bytes, which goes back when the last view of the tensor dies, on any thread,
// also when the store is closed by then. In a forked child the tensor stays readable and nothing is given back.
//
// The memory is for reading. torch knows no read-only tensors, but storages that are copied when they are first written
// to (or asked for a pointer to write through: data_ptr() and numpy() in Python do that), and this is one: such a
// tensor then has memory of its own, and the tier's bytes stay as they are. It keeps the lease until it dies.
//
// The lease must not be empty and holds as many bytes as dtype and shape say. Unimplemented: this torch lacks the
// dtype.
absl::StatusOr<at::Tensor> LeasedTensor(MemoryLease lease, uint16_t dtype, std::span<const uint64_t> shape);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_LIBTORCH_LEASED_TENSOR_H_
