#include "python/bindings/values.h"

#include <torch/csrc/autograd/python_variable.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "python/bindings/errors.h"
#include "python/bindings/waiting.h"
#include "python/libtorch/tensor_io.h"
#include "store/name.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

std::string TypeName(py::handle object) { return py::type::of(object).attr("__name__").cast<std::string>(); }

// Refusals name what the user sees: FakeTensor, DTensor, a wrapper subclass.
void ThrowIfNotStorable(const at::Tensor& tensor, py::handle object, const std::string& name) {
  absl::Status status = CheckStorable(tensor);
  if (status.ok()) return;
  if (!THPVariable_CheckExact(object.ptr())) {
    status = absl::Status(status.code(), absl::StrCat(std::string(status.message()), " (", TypeName(object), ")"));
  }
  ThrowStatus(Annotate(status, absl::StrCat("\"", EscapeForTerminal(name), "\"")));
}

}  // namespace

BufferBytes::BufferBytes(py::handle object) {
  if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) != 0) throw py::error_already_set();
}

BufferBytes::BufferBytes(BufferBytes&& other) noexcept : view_(other.view_) { other.view_ = Py_buffer{}; }

BufferBytes::~BufferBytes() { PyBuffer_Release(&view_); }

std::span<const std::byte> BufferBytes::bytes() const {
  return {static_cast<const std::byte*>(view_.buf), static_cast<size_t>(view_.len)};
}

uint64_t StoredValues::size_bytes() const {
  uint64_t sum = 0;
  for (const StoredValue& value : values) sum += value.size_bytes();
  return sum;
}

std::string NameFrom(py::handle name) {
  if (!PyUnicode_Check(name.ptr())) throw py::type_error("a name must be a str, not " + TypeName(name));
  Py_ssize_t size = 0;
  const char* text = PyUnicode_AsUTF8AndSize(name.ptr(), &size);
  if (text == nullptr) throw py::error_already_set();
  return std::string(text, static_cast<size_t>(size));
}

std::vector<std::string> NamesFrom(const py::list& names) {
  std::vector<std::string> result;
  result.reserve(names.size());
  for (const py::handle name : names) result.push_back(NameFrom(name));
  return result;
}

bool IsTensor(py::handle object) { return THPVariable_Check(object.ptr()); }

const at::Tensor& TensorFrom(py::handle object, const char* what) {
  if (!IsTensor(object)) throw py::type_error(absl::StrCat(what, " must be a torch.Tensor, not ", TypeName(object)));
  return THPVariable_Unpack(object.ptr());
}

py::object ToPython(at::Tensor tensor) {
  return py::reinterpret_steal<py::object>(THPVariable_Wrap(std::move(tensor)));
}

StoredValues ParseValues(const py::list& names, const py::list& values) {
  if (names.size() != values.size()) throw py::value_error("as many values as names are needed");
  StoredValues parsed;
  parsed.names = NamesFrom(names);
  parsed.values.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const py::handle value = values[i];
    if (IsTensor(value)) {
      const at::Tensor& tensor = THPVariable_Unpack(value.ptr());
      ThrowIfNotStorable(tensor, value, parsed.names[i]);
      parsed.values.push_back({.tensor = tensor, .bytes = {}});
    } else if (PyObject_CheckBuffer(value.ptr())) {
      parsed.buffers.emplace_back(value);
      parsed.values.push_back({.tensor = {}, .bytes = parsed.buffers.back().bytes()});
    } else {
      ThrowStatus(absl::UnimplementedError(absl::StrCat("\"", EscapeForTerminal(parsed.names[i]), "\": cannot keep a ",
                                                        TypeName(value), "; give a tensor, an array or bytes")));
    }
  }
  return parsed;
}

py::object CopyOf(MemoryPool& pool, const py::object& value) {
  if (!IsTensor(value)) return py::module_::import("builtins").attr("bytes")(value);
  const at::Tensor& tensor = THPVariable_Unpack(value.ptr());
  at::Tensor copy;
  const absl::Status status = WaitHere([&]() -> absl::Status {
    copy = PlainTensor(tensor);
    if (!copy.is_same(tensor)) return absl::OkStatus();  // it had to be packed, so it is a copy already
    const std::vector<uint64_t> shape(tensor.sizes().begin(), tensor.sizes().end());
    TS_ASSIGN_OR_RETURN(copy, ResultTensors(pool).New(static_cast<uint16_t>(tensor.scalar_type()), shape));
    const std::span<const std::byte> from = BytesOf(tensor);
    std::copy(from.begin(), from.end(), WritableBytesOf(copy).begin());
    return absl::OkStatus();
  });
  ThrowIfError(status);
  return ToPython(copy);
}

py::bytes NewBytes(uint64_t size) {
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
  if (bytes == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::bytes>(bytes);
}

std::span<std::byte> MemoryOf(const py::bytes& bytes) {
  return {reinterpret_cast<std::byte*>(PyBytes_AS_STRING(bytes.ptr())),
          static_cast<size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

}  // namespace tensorshelf
