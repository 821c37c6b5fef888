// Calls that change where things lie: compaction, growth, a device that leaves. Reports are dictionaries; what is in
// them, python/tensorshelf/_core.pyi says.

#ifndef TENSORSHELF_PYTHON_BINDINGS_SPACE_H_
#define TENSORSHELF_PYTHON_BINDINGS_SPACE_H_

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "python/bindings/handles.h"

namespace tensorshelf {

// `progress`: None, or called as progress(objects_moved, bytes_moved) after each commit, from the thread that works;
// an exception of it ends the run and goes on from here. Ctrl-C ends the run as well.
pybind11::dict CompactStore(const std::shared_ptr<StoreHandle>& handle, uint64_t rate, bool dry_run,
                            const pybind11::object& progress);

pybind11::dict GrowOpenStore(const std::shared_ptr<StoreHandle>& handle, uint64_t capacity,
                             const std::vector<std::string>& devices);
// As CompactStore.
pybind11::dict DrainDevice(const std::shared_ptr<StoreHandle>& handle, const std::string& device, uint64_t rate,
                           const pybind11::object& progress);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_SPACE_H_
