// Parts of tensors.

#ifndef TENSORSHELF_PYTHON_BINDINGS_SLICES_H_
#define TENSORSHELF_PYTHON_BINDINGS_SLICES_H_

#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "python/bindings/handles.h"

namespace tensorshelf {

std::shared_ptr<ObjectHandle> FindObject(const std::shared_ptr<StoreHandle>& store, const std::string& name,
                                         const ViewHandle* view);

// One part of a found object, as a new tensor or into `out` (None: new).
pybind11::object ReadPart(const ObjectHandle& object, const pybind11::object& index, const pybind11::object& out,
                          bool verify);

// `requests` is a list of (name, index); all of one commit, one submission. `out`: None, or a list of as many tensors.
pybind11::list ReadParts(const std::shared_ptr<StoreHandle>& store, const pybind11::list& requests,
                         const pybind11::object& out, bool verify, const ViewHandle* view);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_SLICES_H_
