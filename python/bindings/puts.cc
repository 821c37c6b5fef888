#include "python/bindings/puts.h"

#include <span>
#include <utility>
#include <vector>

#include "engine/foundation/status_macros.h"
#include "python/bindings/errors.h"
#include "python/bindings/waiting.h"
#include "python/libtorch/tensor_io.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

// Copies that strided and device tensors need are made for this many bytes at a time.
constexpr uint64_t kCopiedBytesMax = uint64_t{256} << 20;

PutItem ItemFrom(std::string name, const PutSettings& settings) {
  PutItem item;
  item.name = std::move(name);
  item.metadata = settings.metadata;
  item.precondition = settings.precondition;
  item.block_log2 = settings.block_log2;
  item.skip_unchanged = settings.skip_unchanged;
  item.ephemeral = settings.ephemeral;
  item.cache = settings.cache;
  item.priority = settings.priority;
  return item;
}

// The values from `first` on that go down in one step, and their end. `plain` keeps the copies alive.
size_t NextStep(StoredValues& values, size_t first, const PutSettings& settings, std::vector<PutItem>* items,
                std::vector<at::Tensor>* plain) {
  uint64_t step_bytes = 0;
  uint64_t copied_bytes = 0;
  size_t next = first;
  for (; next < values.values.size() && step_bytes < kStepBytes && copied_bytes < kCopiedBytesMax; ++next) {
    StoredValue& value = values.values[next];
    PutItem item = ItemFrom(std::move(values.names[next]), settings);
    step_bytes += value.size_bytes();
    if (value.tensor.defined()) {
      plain->push_back(PlainTensor(value.tensor));
      if (!plain->back().is_same(value.tensor)) copied_bytes += value.tensor.nbytes();
      DescribeTensor(plain->back(), &item);
    } else {
      item.kind = ObjectKind::kBytes;
      item.bytes = value.bytes;
    }
    items->push_back(std::move(item));
  }
  return next;
}

// Without the interpreter lock. `staged_any`: a step went down before the one that failed.
absl::Status StageAll(Transaction& transaction, StoredValues& values, const PutSettings& settings,
                      const Interrupted& interrupted, bool* staged_any) {
  *staged_any = false;
  for (size_t next = 0; next < values.values.size();) {
    TS_RETURN_IF_ERROR(CheckInterrupted(interrupted));
    std::vector<PutItem> items;
    std::vector<at::Tensor> plain;
    next = NextStep(values, next, settings, &items, &plain);
    TS_RETURN_IF_ERROR(transaction.Put(items));
    *staged_any = true;
  }
  return absl::OkStatus();
}

py::tuple ToTuple(const CommitResult& result) {
  py::list generations(result.generations.size());
  for (size_t i = 0; i < result.generations.size(); ++i) generations[i] = py::int_(result.generations[i]);
  return py::make_tuple(result.commit, generations, result.names_changed, result.unchanged_count);
}

}  // namespace

Precondition PreconditionFrom(const std::string& kind, uint64_t generation) {
  if (kind == "absent") return {.kind = Precondition::Kind::kAbsent};
  if (kind == "exists") return {.kind = Precondition::Kind::kExists};
  if (kind == "generation") return {.kind = Precondition::Kind::kGeneration, .generation = generation};
  return {};
}

py::tuple PutValues(const std::shared_ptr<StoreHandle>& store, const py::list& names, const py::list& values,
                    const PutSettings& settings) {
  StoredValues parsed = ParseValues(names, values);
  CommitResult result;
  Store& target = store->store();
  const absl::Status status = WaitFor(parsed.size_bytes(), [&](const Interrupted& interrupted) -> absl::Status {
    TS_ASSIGN_OR_RETURN(Transaction transaction, target.Begin());
    bool staged_any = false;
    TS_RETURN_IF_ERROR(StageAll(transaction, parsed, settings, interrupted, &staged_any));
    TS_RETURN_IF_ERROR(CheckInterrupted(interrupted));
    TS_ASSIGN_OR_RETURN(result, transaction.Commit());
    return absl::OkStatus();
  });
  store->notices().Deliver();
  ThrowIfError(status);
  return ToTuple(result);
}

TransactionHandle::TransactionHandle(std::shared_ptr<StoreHandle> store) : store_(std::move(store)) {
  Store& target = store_->store();
  const absl::Status status = WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(Transaction transaction, target.Begin());
    transaction_ = ForkSafe<Transaction>(std::make_unique<Transaction>(std::move(transaction)));
    return absl::OkStatus();
  });
  ThrowIfError(status);
}

Transaction& TransactionHandle::OpenTransaction() const {
  store_->store();
  if (transaction_.get() == nullptr) ThrowClosed("this transaction");
  return *transaction_;
}

void TransactionHandle::Put(const py::list& names, const py::list& values, const PutSettings& settings) {
  Transaction& transaction = OpenTransaction();
  StoredValues parsed = ParseValues(names, values);
  const absl::Status status = WaitFor(parsed.size_bytes(), [&](const Interrupted& interrupted) {
    const std::lock_guard<std::mutex> lock(mutex_);
    bool staged_any = false;
    const absl::Status staged = StageAll(transaction, parsed, settings, interrupted, &staged_any);
    if (!staged.ok() && staged_any) is_broken_ = true;
    return staged;
  });
  store_->notices().Deliver();
  ThrowIfError(status);
}

void TransactionHandle::Change(const std::function<void(Transaction&)>& operation) {
  Transaction& transaction = OpenTransaction();
  const absl::Status status = WaitHere([&] {
    const std::lock_guard<std::mutex> lock(mutex_);
    operation(transaction);
    return absl::OkStatus();
  });
  ThrowIfError(status);
}

py::tuple TransactionHandle::Commit() {
  Transaction& transaction = OpenTransaction();
  CommitResult result;
  const absl::Status status = WaitLong([&](const Interrupted&) -> absl::Status {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_broken_) {
      return absl::FailedPreconditionError(
          "a put of this transaction failed when part of its values was written: it cannot "
          "be committed");
    }
    TS_ASSIGN_OR_RETURN(result, transaction.Commit());
    return absl::OkStatus();
  });
  transaction_.Reset();
  store_->notices().Deliver();
  ThrowIfError(status);
  return ToTuple(result);
}

void TransactionHandle::Abort() { transaction_.Reset(); }

}  // namespace tensorshelf
