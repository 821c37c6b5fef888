#include "python/bindings/gets.h"

#include <algorithm>
#include <utility>

#include "engine/foundation/status_macros.h"
#include "python/bindings/errors.h"
#include "python/bindings/values.h"
#include "python/libtorch/leased_tensor.h"
#include "python/libtorch/tensor_io.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

constexpr uint64_t kBlockBytesMax = uint64_t{1} << 20;

uint64_t SumOfBytes(std::span<const Object> objects) {
  uint64_t sum = 0;
  for (const Object& object : objects) sum += object.size_bytes();
  return sum;
}

// New values for found objects: made in three strides, since tensors need no interpreter lock and bytes do.
class NewValues {
 public:
  NewValues(Store& store, std::span<const Object> objects, bool as_bytes)
      : store_(store), objects_(objects), as_bytes_(as_bytes), results_(*store.memory_pool()) {}

  // With the lock.
  void MakeBytes() {
    for (size_t i = 0; i < objects_.size(); ++i) {
      if (IsBytes(i)) bytes_.push_back(NewBytes(objects_[i].size_bytes()));
    }
  }

  // Without it.
  absl::Status Read(const GetSettings& settings, const Interrupted& interrupted) {
    std::vector<MemoryLease> leases(objects_.size());
    if (!settings.copy) {
      TS_ASSIGN_OR_RETURN(leases, store_.Lease(objects_, settings.read));
    }
    std::vector<ReadRequest> requests;
    requests.reserve(objects_.size());
    tensors_.reserve(objects_.size());
    size_t next_bytes = 0;
    for (size_t i = 0; i < objects_.size(); ++i) {
      const Object& object = objects_[i];
      if (IsBytes(i)) {
        requests.push_back({.object = &object, .offset = 0, .to = MemoryOf(bytes_[next_bytes++])});
        continue;
      }
      TS_RETURN_IF_ERROR(CheckTensorObject(object));
      if (!leases[i].empty()) {
        TS_ASSIGN_OR_RETURN(at::Tensor leased,
                            LeasedTensor(std::move(leases[i]), object.record().dtype, object.record().shape));
        tensors_.push_back(std::move(leased));
        continue;
      }
      TS_ASSIGN_OR_RETURN(at::Tensor tensor, results_.New(object.record().dtype, object.record().shape));
      requests.push_back({.object = &object, .offset = 0, .to = WritableBytesOf(tensor)});
      tensors_.push_back(std::move(tensor));
    }
    if (requests.empty()) return absl::OkStatus();
    const std::shared_ptr<void> faults = results_.FaultInBehind();
    return ReadInSteps(store_, requests, settings.read, interrupted);
  }

  // With the lock.
  py::list Take() {
    const CollectorPause pause;
    py::list values(objects_.size());
    size_t next_bytes = 0;
    size_t next_tensor = 0;
    for (size_t i = 0; i < objects_.size(); ++i) {
      if (IsBytes(i)) {
        values[i] = bytes_[next_bytes++];
      } else {
        values[i] = ToPython(std::move(tensors_[next_tensor++]));
      }
    }
    return values;
  }

 private:
  bool IsBytes(size_t i) const { return as_bytes_ || objects_[i].record().kind == ObjectKind::kBytes; }

  Store& store_;
  std::span<const Object> objects_;
  const bool as_bytes_;
  ResultTensors results_;
  std::vector<py::bytes> bytes_;
  std::vector<at::Tensor> tensors_;
};

py::list NewValuesOf(StoreHandle& store, std::span<const Object> objects, bool as_bytes, const GetSettings& settings) {
  NewValues values(store.store(), objects, as_bytes);
  values.MakeBytes();
  const absl::Status status =
      WaitFor(SumOfBytes(objects), [&](const Interrupted& interrupted) { return values.Read(settings, interrupted); });
  ThrowIfError(status);
  return values.Take();
}

void FillTensors(StoreHandle& store, std::span<const Object> objects, std::span<const at::Tensor> out,
                 const ReadOptions& options) {
  Store& source = store.store();
  const absl::Status status = WaitFor(SumOfBytes(objects), [&](const Interrupted& interrupted) {
    return ReadInto(*source.memory_pool(), objects, out, [&](std::span<const ReadRequest> requests) {
      return ReadInSteps(source, requests, options, interrupted);
    });
  });
  ThrowIfError(status);
}

}  // namespace

absl::Status ReadInSteps(Store& store, std::span<const ReadRequest> requests, const ReadOptions& options,
                         const Interrupted& interrupted) {
  std::vector<ReadRequest> step;
  uint64_t step_bytes = 0;
  const auto run = [&]() -> absl::Status {
    TS_RETURN_IF_ERROR(CheckInterrupted(interrupted));
    const absl::Status status = store.Read(step, options);
    step.clear();
    step_bytes = 0;
    return status;
  };
  uint64_t all_bytes = 0;
  for (const ReadRequest& request : requests) all_bytes += request.to.size();
  if (all_bytes <= kStepBytes) return store.Read(requests, options);
  for (const ReadRequest& request : requests) {
    for (uint64_t done = 0; done < request.to.size();) {
      // A request is cut where the largest checksum block ends, so that no block is read twice.
      const uint64_t rest = request.to.size() - done;
      const uint64_t room = (kStepBytes - step_bytes) / kBlockBytesMax * kBlockBytesMax;
      const uint64_t length = std::min(rest, room);
      if (length != 0) {
        step.push_back(
            {.object = request.object, .offset = request.offset + done, .to = request.to.subspan(done, length)});
      }
      done += length;
      step_bytes += length;
      if (length < rest) TS_RETURN_IF_ERROR(run());
    }
  }
  return step.empty() ? absl::OkStatus() : run();
}

CacheHint CacheHintFrom(const std::string& cache) {
  return cache == "keep" ? CacheHint::kKeep : cache == "once" ? CacheHint::kOnce : CacheHint::kNone;
}

Priority PriorityFrom(const std::string& priority) {
  return priority == "high"         ? Priority::kHigh
         : priority == "background" ? Priority::kBackground
                                    : Priority::kForeground;
}

GetSettings GetSettingsFrom(bool verify, const std::string& cache, const std::string& order, bool copy,
                            const std::string& priority) {
  return {.read = {.verify = verify,
                   .priority = PriorityFrom(priority),
                   .cache = CacheHintFrom(cache),
                   .order = order == "sweep" ? AccessOrder::kSweep : AccessOrder::kAny},
          .copy = copy};
}

py::list GetValues(const std::shared_ptr<StoreHandle>& store, const py::list& names, const py::object& out,
                   bool as_bytes, const GetSettings& settings, const ViewHandle* view) {
  Store& source = store->store();
  const View* at = view != nullptr ? view->get() : nullptr;
  const std::vector<std::string> wanted = NamesFrom(names);
  std::vector<Object> objects;
  const absl::Status found = WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(objects, source.FindMany(wanted, at));
    return absl::OkStatus();
  });
  ThrowIfError(found);
  py::list values;
  if (out.is_none()) {
    values = NewValuesOf(*store, objects, as_bytes, settings);
  } else {
    std::vector<at::Tensor> tensors;
    for (const py::handle tensor : out) tensors.push_back(TensorFrom(tensor, "out="));
    FillTensors(*store, objects, tensors, settings.read);
    values = py::list(out);
  }
  store->notices().Deliver();
  return values;
}

py::object GetValue(const std::shared_ptr<StoreHandle>& store, const std::string& name, const py::object& out,
                    bool as_bytes, const GetSettings& settings, const ViewHandle* view) {
  Store& source = store->store();
  const View* at = view != nullptr ? view->get() : nullptr;
  Object object;
  const absl::Status found = WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(object, source.Find(name, at));
    return absl::OkStatus();
  });
  ThrowIfError(found);
  const std::span<const Object> objects(&object, 1);
  py::object value = out;
  if (out.is_none()) {
    value = NewValuesOf(*store, objects, as_bytes, settings)[0];
  } else {
    const at::Tensor tensor = TensorFrom(out, "out=");
    FillTensors(*store, objects, std::span(&tensor, 1), settings.read);
  }
  store->notices().Deliver();
  return value;
}

}  // namespace tensorshelf
