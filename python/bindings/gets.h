// Whole objects, one or many.

#ifndef TENSORSHELF_PYTHON_BINDINGS_GETS_H_
#define TENSORSHELF_PYTHON_BINDINGS_GETS_H_

#include <pybind11/pybind11.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "python/bindings/handles.h"
#include "python/bindings/waiting.h"
#include "store/store.h"

namespace tensorshelf {

// How a get reads. `copy` false: tensors that lie in the memory tier, or come to lie there, are leased instead of
// copied.
struct GetSettings {
  ReadOptions read;
  bool copy = true;
};

// `cache` is "none", "keep" or "once", `order` "any" or "sweep".
GetSettings GetSettingsFrom(bool verify, const std::string& cache, const std::string& order, bool copy,
                            const std::string& priority);
// "high", "normal" or "background".
Priority PriorityFrom(const std::string& priority);
CacheHint CacheHintFrom(const std::string& cache);

// The values of `names`, in order, all of one commit: tensors, and bytes for what is bytes. With `out` (a list of as
// many tensors), into those. With `as_bytes`, everything as bytes.
pybind11::list GetValues(const std::shared_ptr<StoreHandle>& store, const pybind11::list& names,
                         const pybind11::object& out, bool as_bytes, const GetSettings& settings,
                         const ViewHandle* view);

// One of them, with less ado.
pybind11::object GetValue(const std::shared_ptr<StoreHandle>& store, const std::string& name,
                          const pybind11::object& out, bool as_bytes, const GetSettings& settings,
                          const ViewHandle* view);

// Store::Read in steps, between which an interrupted call stops. Without the interpreter lock.
absl::Status ReadInSteps(Store& store, std::span<const ReadRequest> requests, const ReadOptions& options,
                         const Interrupted& interrupted);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_GETS_H_
