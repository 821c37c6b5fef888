// at::Tensor in and out of a store: what may be kept, how its bytes are had, and results in recycled memory.
// For C++ callers with libtorch; the Python module stands on it too.
//
//   TS_RETURN_IF_ERROR(PutTensor(*store, "w", tensor));
//   TS_ASSIGN_OR_RETURN(at::Tensor back, GetTensor(*store, "w"));
//
// All functions are thread-safe, need no interpreter lock, and leave no transfer in flight when they return.
// Unimplemented means here: a tensor or dtype that cannot be kept or cannot be made, named by its property.

#ifndef TENSORSHELF_PYTHON_LIBTORCH_TENSOR_IO_H_
#define TENSORSHELF_PYTHON_LIBTORCH_TENSOR_IO_H_

#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "python/libtorch/pooled_tensor.h"
#include "store/store.h"

namespace tensorshelf {

// OK if the tensor's values are plain dense bytes of a dtype that the store keeps; else Unimplemented, naming the
// property: sparse, quantized, nested, meta, mkldnn, inside a functorch transform, handled by __torch_dispatch__,
// dtype.
absl::Status CheckStorable(const at::Tensor& tensor);

// The same values in C order in memory of the CPU, with no conj or neg bit and no autograd: the tensor itself where it
// is so already, else a copy. `tensor` must be storable.
at::Tensor PlainTensor(const at::Tensor& tensor);

// Whether `tensor` is such a tensor: PlainTensor would return it as it is.
bool IsPlainTensor(const at::Tensor& tensor);

// The bytes of a plain tensor; they live as long as its storage. For writing, a storage that is shared copy-on-write
// becomes the tensor's own first.
std::span<const std::byte> BytesOf(const at::Tensor& plain);
std::span<std::byte> WritableBytesOf(const at::Tensor& plain);
// To be called after bytes were written behind autograd's back.
void NoteWritten(const at::Tensor& tensor);

// Sets kind, dtype, shape and bytes of `item` from a plain tensor, which must live and stay unchanged until the put
// returns.
void DescribeTensor(const at::Tensor& plain, PutItem* item);

// OK if the object can become a tensor. Unimplemented: it is bytes, or its dtype is one that this torch lacks.
absl::Status CheckTensorObject(const Object& object);

// OK if `out` can take values of the object, of which a part has `shape`. InvalidArgument: another dtype or shape.
absl::Status CheckOut(const Object& object, std::span<const uint64_t> shape, const at::Tensor& out);

// New tensors with the objects' values, in order; one submission for all. Unimplemented: an object is bytes, not a
// tensor, or has a dtype that this torch lacks.
absl::StatusOr<std::vector<at::Tensor>> ReadTensors(Store& store, std::span<const Object> objects,
                                                    const ReadOptions& options);

// Into existing tensors of the same dtype and shape. Contiguous CPU tensors are read into directly; strided ones, and
// those of other devices, through a temporary. InvalidArgument: a dtype or shape differs, before anything is read.
absl::Status ReadInto(Store& store, std::span<const Object> objects, std::span<const at::Tensor> out,
                      const ReadOptions& options);

// The same for callers with a way of reading of their own. `read` is called once; temporaries come from `pool`.
using ReadFunction = std::function<absl::Status(std::span<const ReadRequest> requests)>;
absl::Status ReadInto(MemoryPool& pool, std::span<const Object> objects, std::span<const at::Tensor> out,
                      const ReadFunction& read);

// Values of one contiguous tensor into another of the same dtype and shape and any strides or device.
void CopyValues(const at::Tensor& from, const at::Tensor& to);

// One tensor, durably.
absl::StatusOr<CommitResult> PutTensor(Store& store, const std::string& name, const at::Tensor& tensor);
absl::StatusOr<at::Tensor> GetTensor(Store& store, const std::string& name);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_LIBTORCH_TENSOR_IO_H_
