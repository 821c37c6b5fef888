// Python's index expressions for stored tensors. Needs the interpreter lock.

#ifndef TENSORSHELF_PYTHON_BINDINGS_INDEX_PARSER_H_
#define TENSORSHELF_PYTHON_BINDINGS_INDEX_PARSER_H_

#include <pybind11/pybind11.h>

#include "absl/status/statusor.h"
#include "index/record.h"
#include "python/libtorch/slice_plan.h"

namespace tensorshelf {

// `index`: an int, a slice, `...`, None, a tuple of those, or a 1-D integer tensor of row numbers. Throws IndexError,
// ValueError (a step below 1) and TypeError.
SlicePlan PlanFrom(const ObjectRecord& record, pybind11::handle index);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_INDEX_PARSER_H_
