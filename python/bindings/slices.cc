#include "python/bindings/slices.h"

#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/foundation/status_macros.h"
#include "python/bindings/errors.h"
#include "python/bindings/gets.h"
#include "python/bindings/index_parser.h"
#include "python/bindings/values.h"
#include "python/bindings/waiting.h"
#include "python/libtorch/slice_read.h"
#include "python/libtorch/tensor_io.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

SliceRequest RequestFrom(const Object& object, py::handle index, py::handle out) {
  ThrowIfError(CheckTensorObject(object));
  SliceRequest request{.object = &object, .plan = PlanFrom(object.record(), index), .out = {}};
  if (!out.is_none()) request.out = TensorFrom(out, "out=");
  return request;
}

std::vector<at::Tensor> Read(Store& store, std::span<const SliceRequest> requests, bool verify) {
  uint64_t bytes = 0;
  for (const SliceRequest& request : requests) {
    for (const ByteRun& run : request.plan.runs) bytes += run.length;
  }
  std::vector<at::Tensor> parts;
  const absl::Status status = WaitFor(bytes, [&](const Interrupted& interrupted) -> absl::Status {
    TS_ASSIGN_OR_RETURN(parts, ReadSlices(*store.memory_pool(), requests, [&](std::span<const ReadRequest> reads) {
                          return ReadInSteps(store, reads, {.verify = verify}, interrupted);
                        }));
    return absl::OkStatus();
  });
  ThrowIfError(status);
  return parts;
}

// The names in order of their first request, and for each request the number of its name.
std::pair<std::vector<std::string>, std::vector<size_t>> DistinctNames(const py::list& requests) {
  std::vector<std::string> names;
  std::vector<size_t> numbers;
  std::unordered_map<std::string, size_t> known;
  for (const py::handle request : requests) {
    if (!PyTuple_Check(request.ptr()) || PyTuple_GET_SIZE(request.ptr()) != 2) {
      throw py::type_error("a request is a tuple (name, index)");
    }
    const auto [at, is_new] = known.emplace(NameFrom(PyTuple_GET_ITEM(request.ptr(), 0)), names.size());
    if (is_new) names.push_back(at->first);
    numbers.push_back(at->second);
  }
  return {std::move(names), std::move(numbers)};
}

}  // namespace

std::shared_ptr<ObjectHandle> FindObject(const std::shared_ptr<StoreHandle>& store, const std::string& name,
                                         const ViewHandle* view) {
  Store& source = store->store();
  const View* at = view != nullptr ? view->get() : nullptr;
  auto handle = std::make_shared<ObjectHandle>();
  const absl::Status status = WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(Object object, source.Find(name, at));
    handle->object = ForkSafe<Object>(std::make_unique<Object>(std::move(object)));
    return absl::OkStatus();
  });
  store->notices().Deliver();
  ThrowIfError(status);
  handle->store = store;
  return handle;
}

py::object ReadPart(const ObjectHandle& object, const py::object& index, const py::object& out, bool verify) {
  Store& store = object.store->store();
  const SliceRequest request = RequestFrom(*object.object, index, out);
  const std::vector<at::Tensor> parts = Read(store, std::span(&request, 1), verify);
  object.store->notices().Deliver();
  return out.is_none() ? ToPython(parts.front()) : out;
}

py::list ReadParts(const std::shared_ptr<StoreHandle>& store, const py::list& requests, const py::object& out,
                   bool verify, const ViewHandle* view) {
  Store& source = store->store();
  const View* at = view != nullptr ? view->get() : nullptr;
  if (!out.is_none() && py::len(out) != requests.size()) {
    throw py::value_error("out= needs as many tensors as there are requests");
  }
  const auto [names, numbers] = DistinctNames(requests);
  std::vector<Object> objects;
  const absl::Status found = WaitHere([&, &wanted = names]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(objects, source.FindMany(wanted, at));
    return absl::OkStatus();
  });
  ThrowIfError(found);
  std::vector<SliceRequest> slices;
  slices.reserve(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    const py::object target = out.is_none() ? py::none() : py::object(out[py::int_(i)]);
    slices.push_back(RequestFrom(objects[numbers[i]], PyTuple_GET_ITEM(requests[i].ptr(), 1), target));
  }
  const std::vector<at::Tensor> parts = Read(source, slices, verify);
  store->notices().Deliver();
  const CollectorPause pause;
  py::list result(parts.size());
  for (size_t i = 0; i < parts.size(); ++i)
    result[i] = out.is_none() ? ToPython(parts[i]) : py::object(out[py::int_(i)]);
  return result;
}

}  // namespace tensorshelf
