#include "python/libtorch/leased_tensor.h"

#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/impl/COWDeleter.h>

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/foundation/process_id.h"
#include "python/libtorch/pooled_tensor.h"

namespace tensorshelf {
namespace {

// Leases by the address of their bytes: all that torch's copy-on-write contexts hand to a deleter. Leases of one
// address are of one entry of the tier, so any of them may go for any other. Thread-safe.
class LentBytes {
 public:
  // Of this process: in a forked child the parent's may be locked by a thread that is not there. Never destroyed, since
  // tensors may outlive everything.
  static LentBytes& OfThisProcess() {
    static std::atomic<LentBytes*> current{new LentBytes};
    LentBytes* lent = current.load(std::memory_order_acquire);
    if (lent->process_ == ProcessId()) return *lent;
    auto fresh = std::make_unique<LentBytes>();
    if (current.compare_exchange_strong(lent, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
    return *lent;  // another thread of the child was first
  }

  void Add(const void* address, MemoryLease lease) {
    absl::MutexLock lock(&mutex_);
    leases_[address].push_back(std::move(lease));
  }

  void Release(const void* address) {
    MemoryLease released;  // goes without the lock
    absl::MutexLock lock(&mutex_);
    const auto found = leases_.find(address);
    if (found == leases_.end()) return;  // lent before a fork
    released = std::move(found->second.back());
    found->second.pop_back();
    if (found->second.empty()) leases_.erase(found);
  }

 private:
  const pid_t process_ = ProcessId();
  absl::Mutex mutex_;
  absl::flat_hash_map<const void*, std::vector<MemoryLease>> leases_ ABSL_GUARDED_BY(mutex_);
};

void ReleaseBytes(void* address) { LentBytes::OfThisProcess().Release(address); }

// A copy-on-write storage over memory that is never to be written to. Of such memory torch lets the last owner write in
// place; `second_` is a second owner that lives as long as the storage, so that a write always finds another one.
class LeasedStorage final : public c10::StorageImpl {
 public:
  LeasedStorage(size_t size, at::DataPtr first, at::DataPtr second)
      : StorageImpl(use_byte_size_t(), static_cast<int64_t>(size), std::move(first), c10::GetCPUAllocator(),
                    /*resizable=*/false),
        second_(std::move(second)) {}

  void release_resources() override {
    StorageImpl::release_resources();
    second_.clear();
  }

 private:
  at::DataPtr second_;
};

// Newer versions of torch ask a storage for its way of copying, older ones look at the kind of its context.
template <typename Storage>
void CopyWhenWritten(Storage& storage) {
  if constexpr (requires { storage.set_materializer(nullptr); }) {
    storage.set_materializer(+[](c10::StorageImpl* written) {
      written->set_data_ptr_noswap(written->allocator()->clone(written->data_ptr().get(), written->nbytes()));
    });
  }
}

}  // namespace

absl::StatusOr<at::Tensor> LeasedTensor(MemoryLease lease, uint16_t dtype, std::span<const uint64_t> shape) {
  if (!TorchHasDtype(dtype)) return absl::UnimplementedError(absl::StrCat("this torch has no dtype number ", dtype));
  const std::span<const std::byte> bytes = lease.bytes();
  void* address = const_cast<std::byte*>(bytes.data());
  LentBytes::OfThisProcess().Add(address, std::move(lease));
  auto* context =
      new c10::impl::cow::COWDeleterContext(std::unique_ptr<void, c10::DeleterFnPtr>(address, &ReleaseBytes));
  at::DataPtr first(address, context, c10::impl::cow::cow_deleter, at::kCPU);
  context->increment_refcount();
  at::DataPtr second(address, context, c10::impl::cow::cow_deleter, at::kCPU);
  auto storage = c10::make_intrusive<LeasedStorage>(bytes.size(), std::move(first), std::move(second));
  CopyWhenWritten<c10::StorageImpl>(*storage);
  at::Tensor tensor = at::detail::make_tensor<c10::TensorImpl>(
      c10::Storage(std::move(storage)), c10::DispatchKeySet(c10::DispatchKey::CPU),
      caffe2::TypeMeta::fromScalarType(static_cast<at::ScalarType>(dtype)));
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(std::vector<int64_t>(shape.begin(), shape.end()));
  return tensor;
}

}  // namespace tensorshelf
