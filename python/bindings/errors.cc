#include "python/bindings/errors.h"

#include <pybind11/pybind11.h>

#include <cerrno>
#include <string>

#include "absl/strings/str_cat.h"
#include "store/errors.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

[[noreturn]] void Throw(const py::object& exception) {
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw py::error_already_set();
}

py::object ErrorClass(const char* name) { return py::module_::import("tensorshelf.errors").attr(name); }

// Messages quote names, and names escape everything that is not UTF-8; paths may not, so nothing here may fail.
py::str Text(absl::string_view text) {
  return py::reinterpret_steal<py::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "backslashreplace"));
}

[[noreturn]] void ThrowMessage(const char* class_name, const py::str& message) {
  Throw(ErrorClass(class_name)(message));
}

// OSError's own constructor wants the number first.
[[noreturn]] void ThrowOs(const char* class_name, int error_number, const py::str& message) {
  Throw(ErrorClass(class_name)(error_number, message));
}

[[noreturn]] void ThrowCorruption(const absl::Status& status, const py::str& message) {
  const std::optional<CorruptionInfo> info = CorruptionOf(status);
  if (!info.has_value()) ThrowMessage("CorruptionError", message);
  Throw(ErrorClass("CorruptionError")(message, Text(info->name), info->block, Text(info->file), info->offset));
}

// For statuses whose kind says everything; returns for the others.
void ThrowKind(const absl::Status& status, const py::str& message) {
  switch (KindOf(status)) {
    case ErrorKind::kLocked:
      ThrowMessage("StoreLockedError", message);
    case ErrorKind::kReadOnly:
    case ErrorKind::kLatched:
      ThrowMessage("StoreReadOnlyError", message);
    case ErrorKind::kClosed:
      ThrowMessage("ClosedError", message);
    case ErrorKind::kForked:
      ThrowMessage("ForkedError", message);
    case ErrorKind::kPrecondition:
      ThrowMessage("PreconditionError", message);
    case ErrorKind::kDeviceMissing:
      ThrowOs("MissingDeviceError", ENODEV, message);
    case ErrorKind::kLostCommits:
      ThrowMessage("LostCommitsError", message);
    case ErrorKind::kFull:
    case ErrorKind::kIndexFull:
      ThrowOs("StoreFullError", ENOSPC, message);
    case ErrorKind::kCorruption:
      ThrowCorruption(status, message);
    case ErrorKind::kChanged:
      ThrowMessage("TensorChangedError", message);
    default:
      return;
  }
}

}  // namespace

void ThrowStatus(const absl::Status& status, ErrorSubject subject) {
  const py::str message = Text(status.message());
  const bool of_store = subject == ErrorSubject::kStore;
  ThrowKind(status, message);
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      if (of_store) ThrowOs("StoreNotFoundError", ENOENT, message);
      ThrowMessage("NameNotFoundError", message);
    case absl::StatusCode::kAlreadyExists:
      if (of_store) ThrowOs("StoreExistsError", EEXIST, message);
      ThrowMessage("NameExistsError", message);
    case absl::StatusCode::kInvalidArgument:
      PyErr_SetObject(PyExc_ValueError, message.ptr());
      throw py::error_already_set();
    case absl::StatusCode::kOutOfRange:
      PyErr_SetObject(PyExc_IndexError, message.ptr());
      throw py::error_already_set();
    case absl::StatusCode::kUnimplemented:
      ThrowMessage("UnsupportedTensorError", message);
    case absl::StatusCode::kPermissionDenied:
      ThrowOs("StoreIOError", EACCES, message);
    case absl::StatusCode::kResourceExhausted:
      if (of_store) ThrowOs("StoreFullError", ENOSPC, message);
      ThrowOs("StoreIOError", EAGAIN, message);
    case absl::StatusCode::kDataLoss:
      ThrowMessage("CorruptionError", message);
    case absl::StatusCode::kInternal:
      ThrowOs("StoreIOError", EIO, message);
    default:
      ThrowMessage("StoreError", message);
  }
}

void ThrowClosed(const char* what) { ThrowMessage("ClosedError", py::str(absl::StrCat(what, " is closed"))); }

}  // namespace tensorshelf
