#include "python/libtorch/pooled_tensor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/process_id.h"
#include "engine/foundation/status_macros.h"
#include "store/dtype.h"

namespace tensorshelf {
namespace {

// A piece on loan to a tensor. In a forked child nothing is given back: the pool's lock may have been held by a thread
// that the child does not have.
class Loan {
 public:
  explicit Loan(MemoryPool::Piece piece) : piece_(std::move(piece)) {}
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;
  ~Loan() {
    if (ProcessId() != owner_) new MemoryPool::Piece(std::move(piece_));  // kept until the child ends
  }

  std::byte* data() const { return piece_.data(); }
  bool touched() const { return piece_.touched(); }

 private:
  const pid_t owner_ = ProcessId();
  MemoryPool::Piece piece_;
};

absl::StatusOr<at::TensorOptions> OptionsOf(uint16_t dtype) {
  if (!TorchHasDtype(dtype)) return absl::UnimplementedError(absl::StrCat("this torch has no dtype number ", dtype));
  return at::TensorOptions().dtype(static_cast<at::ScalarType>(dtype)).device(at::kCPU);
}

}  // namespace

// torch numbers its types without gaps, so an older torch is one whose list ends earlier.
bool TorchHasDtype(uint16_t dtype) {
  return FindDtype(dtype) != nullptr && dtype < static_cast<int>(at::ScalarType::NumOptions);
}

absl::StatusOr<at::Tensor> NewAlignedTensor(MemoryPool& pool, uint16_t dtype, std::span<const uint64_t> shape,
                                            bool* touched) {
  TS_ASSIGN_OR_RETURN(const at::TensorOptions options, OptionsOf(dtype));
  TS_ASSIGN_OR_RETURN(const uint64_t size, BytesOfShape(dtype, shape));
  const std::vector<int64_t> sizes(shape.begin(), shape.end());
  if (touched != nullptr) *touched = true;
  if (size == 0) return at::empty(sizes, options);
  TS_ASSIGN_OR_RETURN(MemoryPool::Piece piece, pool.Allocate(size));
  const auto loan = std::make_shared<Loan>(std::move(piece));
  if (touched != nullptr) *touched = loan->touched();
  return at::from_blob(
      loan->data(), sizes, [loan](void*) {}, options);
}

absl::StatusOr<at::Tensor> ResultTensors::New(uint16_t dtype, std::span<const uint64_t> shape) {
  TS_ASSIGN_OR_RETURN(const uint64_t size, BytesOfShape(dtype, shape));
  if (size < kPooledBytesMin) {
    TS_ASSIGN_OR_RETURN(const at::TensorOptions options, OptionsOf(dtype));
    return at::empty(std::vector<int64_t>(shape.begin(), shape.end()), options);
  }
  bool touched = false;
  TS_ASSIGN_OR_RETURN(at::Tensor tensor, NewAlignedTensor(pool_, dtype, shape, &touched));
  if (!touched) fresh_.emplace_back(static_cast<std::byte*>(tensor.mutable_data_ptr()), size);
  return tensor;
}

}  // namespace tensorshelf
