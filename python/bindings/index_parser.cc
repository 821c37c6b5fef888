#include "python/bindings/index_parser.h"

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "python/bindings/errors.h"
#include "python/bindings/values.h"
#include "python/libtorch/tensor_io.h"
#include "store/dtype.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

// Any object with __index__, clipped to 64 bits as Python does for sequences.
int64_t IntegerFrom(py::handle object, PyObject* overflow_error) {
  const Py_ssize_t number = PyNumber_AsSsize_t(object.ptr(), overflow_error);
  if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return number;
}

std::optional<int64_t> BoundFrom(PyObject* bound) {
  if (bound == Py_None) return std::nullopt;
  return IntegerFrom(bound, nullptr);
}

IndexItem ItemFrom(py::handle object) {
  if (PySlice_Check(object.ptr())) {
    const auto* slice = reinterpret_cast<PySliceObject*>(object.ptr());
    return {.kind = IndexItem::Kind::kSlice,
            .start = BoundFrom(slice->start),
            .stop = BoundFrom(slice->stop),
            .step = BoundFrom(slice->step).value_or(1)};
  }
  if (object.ptr() == Py_Ellipsis) return {.kind = IndexItem::Kind::kEllipsis};
  if (object.is_none()) return {.kind = IndexItem::Kind::kNewAxis};
  if (!PyBool_Check(object.ptr()) && PyIndex_Check(object.ptr())) {
    return {.kind = IndexItem::Kind::kInteger, .integer = IntegerFrom(object, PyExc_IndexError)};
  }
  throw py::type_error("an index of a stored tensor is made of ints, slices, ..., None, or is one list of rows, not " +
                       py::type::of(object).attr("__name__").cast<std::string>());
}

SlicePlan PlanRowsFrom(const ObjectRecord& record, uint64_t item_bytes, const at::Tensor& rows) {
  if (rows.scalar_type() != at::kLong || rows.dim() != 1 || !IsPlainTensor(rows)) {
    throw py::index_error("row numbers must be a 1-D int64 tensor");
  }
  return ValueOrThrow(
      PlanRows(record.shape, item_bytes, {rows.const_data_ptr<int64_t>(), static_cast<size_t>(rows.numel())}));
}

}  // namespace

SlicePlan PlanFrom(const ObjectRecord& record, py::handle index) {
  const uint64_t item_bytes = FindDtype(record.dtype)->item_bytes;
  std::vector<IndexItem> items;
  if (PyTuple_Check(index.ptr())) {
    for (const py::handle item : py::reinterpret_borrow<py::tuple>(index)) items.push_back(ItemFrom(item));
  } else if (!PySlice_Check(index.ptr()) && IsTensor(index) && TensorFrom(index, "index").dim() != 0) {
    return PlanRowsFrom(record, item_bytes, TensorFrom(index, "index"));
  } else {
    items.push_back(ItemFrom(index));
  }
  return ValueOrThrow(PlanSlice(record.shape, item_bytes, items));
}

}  // namespace tensorshelf
