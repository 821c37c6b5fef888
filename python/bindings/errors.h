// The one place where a status becomes a Python exception. The classes are in python/tensorshelf/errors.py.
// Everything here needs the interpreter lock.

#ifndef TENSORSHELF_PYTHON_BINDINGS_ERRORS_H_
#define TENSORSHELF_PYTHON_BINDINGS_ERRORS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace tensorshelf {

// What a NotFound or an AlreadyExists speaks of.
enum class ErrorSubject { kName, kStore };

// Throws py::error_already_set. `status` must not be OK.
[[noreturn]] void ThrowStatus(const absl::Status& status, ErrorSubject subject = ErrorSubject::kName);

inline void ThrowIfError(const absl::Status& status, ErrorSubject subject = ErrorSubject::kName) {
  if (!status.ok()) ThrowStatus(status, subject);
}

template <typename T>
T ValueOrThrow(absl::StatusOr<T> result, ErrorSubject subject = ErrorSubject::kName) {
  if (!result.ok()) ThrowStatus(result.status(), subject);
  return std::move(result).value();
}

// The handle was closed by its owner.
[[noreturn]] void ThrowClosed(const char* what);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_ERRORS_H_
