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

// The values of `names`, in order, all of one commit: tensors, and bytes for what is bytes. With `out` (a list of as
// many tensors), into those. With `as_bytes`, everything as bytes.
pybind11::list GetValues(const std::shared_ptr<StoreHandle>& store, const pybind11::list& names,
                         const pybind11::object& out, bool as_bytes, bool verify, const ViewHandle* view);

// One of them, with less ado.
pybind11::object GetValue(const std::shared_ptr<StoreHandle>& store, const std::string& name,
                          const pybind11::object& out, bool as_bytes, bool verify, const ViewHandle* view);

// Store::Read in steps, between which an interrupted call stops. Without the interpreter lock.
absl::Status ReadInSteps(Store& store, std::span<const ReadRequest> requests, const ReadOptions& options,
                         const Interrupted& interrupted);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_GETS_H_
