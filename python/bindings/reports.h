// What the store says of itself, as dictionaries.

#ifndef TENSORSHELF_PYTHON_BINDINGS_REPORTS_H_
#define TENSORSHELF_PYTHON_BINDINGS_REPORTS_H_

#include <pybind11/pybind11.h>

#include <string>

#include "python/bindings/handles.h"

namespace tensorshelf {

pybind11::dict DescribeObject(const ObjectHandle& object);
pybind11::dict StatsOf(StoreHandle& store);
std::string MetricsOf(StoreHandle& store);  // for Prometheus
pybind11::dict InfoOf(StoreHandle& store);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_REPORTS_H_
