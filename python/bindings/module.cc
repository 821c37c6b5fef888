// tensorshelf._core: names and arguments only. Signatures and their meaning are in python/tensorshelf/_core.pyi; users
// see python/tensorshelf/store.py.

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/foundation/lock_order_checks.h"
#include "engine/foundation/status_macros.h"
#include "python/bindings/aio_module.h"
#include "python/bindings/errors.h"
#include "python/bindings/gets.h"
#include "python/bindings/handles.h"
#include "python/bindings/puts.h"
#include "python/bindings/reports.h"
#include "python/bindings/slices.h"
#include "python/bindings/space.h"
#include "python/bindings/values.h"
#include "python/bindings/waiting.h"
#include "python/libtorch/pooled_tensor.h"
#include "store/dtype.h"
#include "store/memory_budget.h"

namespace py = pybind11;
using py::arg;

namespace tensorshelf {
namespace {

using StorePointer = std::shared_ptr<StoreHandle>;

// One call without arguments that may take long.
template <typename Call>
void Wait(const StorePointer& handle, Call call) {
  Store& store = handle->store();
  const absl::Status status = WaitLong([&](const Interrupted&) { return call(store); });
  handle->notices().Deliver();
  ThrowIfError(status, ErrorSubject::kStore);
}

PutSettings SettingsFrom(const Metadata& metadata, const std::string& precondition, uint64_t generation,
                         uint8_t block_log2, bool skip_unchanged, bool ephemeral, const std::string& cache,
                         const std::string& priority) {
  return {.metadata = metadata,
          .precondition = PreconditionFrom(precondition, generation),
          .block_log2 = block_log2,
          .skip_unchanged = skip_unchanged,
          .ephemeral = ephemeral,
          .cache = CacheHintFrom(cache),
          .priority = PriorityFrom(priority)};
}

bool Contains(const StorePointer& handle, const std::string& name, const ViewHandle* view) {
  Store& store = handle->store();
  const View* at = view != nullptr ? view->get() : nullptr;
  bool contains = false;
  ThrowIfError(WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(contains, store.Contains(name, at));
    return absl::OkStatus();
  }));
  return contains;
}

// Up to `limit` names within `prefix` that are >= `start`.
std::vector<std::string> NamesPage(const StorePointer& handle, const std::string& prefix, const std::string& start,
                                   size_t limit, const ViewHandle* view) {
  Store& store = handle->store();
  const View* at = view != nullptr ? view->get() : nullptr;
  std::vector<std::string> names;
  ThrowIfError(WaitHere([&] {
    return store.Scan(
        prefix, start,
        [&](const std::string& name, uint64_t) {
          names.push_back(name);
          return names.size() < limit;
        },
        at);
  }));
  return names;
}

// Of the objects of these names now, bytes; 0 where there is none.
std::vector<uint64_t> SizesOf(const StorePointer& handle, const py::list& names, const ViewHandle* view) {
  Store& store = handle->store();
  const View* at = view != nullptr ? view->get() : nullptr;
  const std::vector<std::string> wanted = NamesFrom(names);
  std::vector<uint64_t> sizes;
  sizes.reserve(wanted.size());
  ThrowIfError(WaitHere([&] {
    for (const std::string& name : wanted) {
      const absl::StatusOr<Object> object = store.Find(name, at);
      sizes.push_back(object.ok() ? object->size_bytes() : 0);
    }
    return absl::OkStatus();
  }));
  return sizes;
}

std::string StopTrace(const StorePointer& handle) {
  Store& store = handle->store();
  std::string text;
  ThrowIfError(WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(text, store.StopTrace());
    return absl::OkStatus();
  }));
  return text;
}

std::shared_ptr<ViewHandle> NewView(const StorePointer& handle) {
  Store& store = handle->store();
  auto view = std::make_shared<ViewHandle>();
  ThrowIfError(WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(std::unique_ptr<View> made, store.NewView());
    view->view = ForkSafe<View>(std::move(made));
    return absl::OkStatus();
  }));
  view->store = handle;
  return view;
}

// One pool for the tensors of tensorshelf.empty. It is never destroyed: tensors may outlive the module.
MemoryPool& EmptyPool() {
  static MemoryPool* const pool = new MemoryPool({});
  return *pool;
}

py::object Empty(uint16_t dtype, const std::vector<uint64_t>& shape) {
  at::Tensor tensor;
  ThrowIfError(WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(tensor, NewAlignedTensor(EmptyPool(), dtype, shape));
    return absl::OkStatus();
  }));
  return ToPython(tensor);
}

py::list DtypeNames() {
  py::list names;
  for (const Dtype& dtype : AllDtypes()) names.append(py::make_tuple(dtype.number, dtype.name, dtype.item_bytes));
  return names;
}

void DefineStore(py::module_& module) {
  py::class_<StoreHandle, StorePointer>(module, "Store")
      .def(py::init(&OpenStore), arg("path"), arg("options"))
      .def("close", [](const StorePointer& self) { Wait(self, [](Store& store) { return store.Close(); }); })
      .def("flush", [](const StorePointer& self) { Wait(self, [](Store& store) { return store.Flush(); }); })
      .def("catch_up", [](const StorePointer& self) { Wait(self, [](Store& store) { return store.CatchUp(); }); })
      .def("backup",
           [](const StorePointer& self, const std::string& destination) {
             Wait(self, [&](Store& store) { return store.Backup(destination); });
           })
      .def("compact", &CompactStore)
      .def("grow", &GrowOpenStore)
      .def("drain", &DrainDevice)
      .def_property_readonly("forked", &StoreHandle::forked)
      .def("put",
           [](const StorePointer& self, const py::list& names, const py::list& values, const Metadata& metadata,
              const std::string& precondition, uint64_t generation, uint8_t block_log2, bool skip_unchanged,
              bool ephemeral, const std::string& cache, const std::string& priority) {
             return PutValues(self, names, values,
                              SettingsFrom(metadata, precondition, generation, block_log2, skip_unchanged, ephemeral,
                                           cache, priority));
           })
      .def("get",
           [](const StorePointer& self, const py::object& name, const py::object& out, bool as_bytes, bool verify,
              const ViewHandle* view, const std::string& cache, const std::string& order, bool copy,
              const std::string& priority) {
             return GetValue(self, NameFrom(name), out, as_bytes, GetSettingsFrom(verify, cache, order, copy, priority),
                             view);
           })
      .def("get_many",
           [](const StorePointer& self, const py::list& names, const py::object& out, bool as_bytes, bool verify,
              const ViewHandle* view, const std::string& cache, const std::string& order, bool copy,
              const std::string& priority) {
             return GetValues(self, names, out, as_bytes, GetSettingsFrom(verify, cache, order, copy, priority), view);
           })
      .def("prefetch",
           [](const StorePointer& self, const py::list& names, const std::string& cache, const std::string& order) {
             const std::vector<std::string> wanted = NamesFrom(names);
             const ReadOptions options = GetSettingsFrom(/*verify=*/true, cache, order, /*copy=*/true, "normal").read;
             Store& store = self->store();
             ThrowIfError(WaitHere([&] { return store.Prefetch(wanted, options); }));
           })
      .def("wait_for_prefetch",
           [](const StorePointer& self) { Wait(self, [](Store& store) { return store.WaitForPrefetch(); }); })
      .def("read_parts", &ReadParts)
      .def("find", [](const StorePointer& self, const py::object& name,
                      const ViewHandle* view) { return FindObject(self, NameFrom(name), view); })
      .def("contains", [](const StorePointer& self, const py::object& name,
                          const ViewHandle* view) { return Contains(self, NameFrom(name), view); })
      .def("names",
           [](const StorePointer& self, const py::object& prefix, const py::object& start, size_t limit,
              const ViewHandle* view) { return NamesPage(self, NameFrom(prefix), NameFrom(start), limit, view); })
      .def("sizes", &SizesOf)
      .def("view", &NewView)
      .def("begin", [](const StorePointer& self) { return std::make_shared<TransactionHandle>(self); })
      .def("check", [](const StorePointer&, const py::list& names,
                       const py::list& values) { return ParseValues(names, values).size_bytes(); })
      .def("copy", [](const StorePointer& self,
                      const py::object& value) { return CopyOf(*self->store().memory_pool(), value); })
      .def("stats", [](const StorePointer& self) { return StatsOf(*self); })
      .def("metrics", [](const StorePointer& self) { return MetricsOf(*self); })
      .def("start_trace",
           [](const StorePointer& self, size_t events_max) {
             Store& store = self->store();
             ThrowIfError(WaitHere([&] { return store.StartTrace(events_max); }));
           })
      .def("stop_trace", &StopTrace)
      .def("info", [](const StorePointer& self) { return InfoOf(*self); });

  py::class_<ViewHandle, std::shared_ptr<ViewHandle>>(module, "View")
      .def_property_readonly("commit", [](const ViewHandle& self) { return self.get()->commit(); })
      .def("close", [](ViewHandle& self) { self.view.Reset(); });

  py::class_<ObjectHandle, std::shared_ptr<ObjectHandle>>(module, "Object")
      .def("describe", &DescribeObject)
      .def("read_part", &ReadPart);
}

void DefineTransaction(py::module_& module) {
  using Names = const py::object&;
  py::class_<TransactionHandle, std::shared_ptr<TransactionHandle>>(module, "Transaction")
      .def("put",
           [](TransactionHandle& self, const py::list& names, const py::list& values, const Metadata& metadata,
              const std::string& precondition, uint64_t generation, uint8_t block_log2, bool skip_unchanged,
              bool ephemeral, const std::string& cache, const std::string& priority) {
             self.Put(names, values,
                      SettingsFrom(metadata, precondition, generation, block_log2, skip_unchanged, ephemeral, cache,
                                   priority));
           })
      .def("delete",
           [](TransactionHandle& self, Names name, bool missing_ok) {
             self.Change([name = NameFrom(name), missing_ok](Transaction& t) { t.Delete(name, missing_ok); });
           })
      .def("rename",
           [](TransactionHandle& self, Names from, Names to, bool replace) {
             self.Change(
                 [from = NameFrom(from), to = NameFrom(to), replace](Transaction& t) { t.Rename(from, to, replace); });
           })
      .def("clone",
           [](TransactionHandle& self, Names from, Names to, bool replace) {
             self.Change(
                 [from = NameFrom(from), to = NameFrom(to), replace](Transaction& t) { t.Clone(from, to, replace); });
           })
      .def("delete_prefix",
           [](TransactionHandle& self, Names prefix) {
             self.Change([prefix = NameFrom(prefix)](Transaction& t) { t.DeletePrefix(prefix); });
           })
      .def("rename_prefix",
           [](TransactionHandle& self, Names from, Names to, bool replace) {
             self.Change([from = NameFrom(from), to = NameFrom(to), replace](Transaction& t) {
               t.RenamePrefix(from, to, replace);
             });
           })
      .def("clone_prefix",
           [](TransactionHandle& self, Names from, Names to, bool replace) {
             self.Change([from = NameFrom(from), to = NameFrom(to), replace](Transaction& t) {
               t.ClonePrefix(from, to, replace);
             });
           })
      .def("require",
           [](TransactionHandle& self, Names name, const std::string& precondition, uint64_t generation) {
             self.Change([name = NameFrom(name), condition = PreconditionFrom(precondition, generation)](
                             Transaction& t) { t.Require(name, condition); });
           })
      .def("commit", &TransactionHandle::Commit)
      .def("abort", &TransactionHandle::Abort);
}

}  // namespace

void DefineModule(py::module_& module) {
  module.attr("__version__") = TENSORSHELF_VERSION;
  module.def("create", &CreateStore, arg("path"), arg("options"));
  module.def("empty", &Empty, arg("dtype"), arg("shape"));
  module.def("dtypes", &DtypeNames);
  module.def("auto_memory", [] { return AutoMemoryBytes(); });
  DefineStore(module);
  DefineTransaction(module);
}

}  // namespace tensorshelf

PYBIND11_MODULE(_core, module) {
  py::module_::import("torch");  // its libraries must be in the process before a tensor is
  tensorshelf::TurnOffLockOrderChecks();
  tensorshelf::DefineModule(module);
  tensorshelf::DefineAio(module);
}
