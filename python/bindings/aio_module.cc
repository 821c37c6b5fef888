// tensorshelf._core.aio: DeepSpeed's names and arguments, one line each.

#include "python/bindings/aio_module.h"

#include <c10/core/GradMode.h>

#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "python/aio/process_wide.h"
#include "python/bindings/aio_calls.h"
#include "python/bindings/errors.h"
#include "python/bindings/values.h"
#include "python/bindings/waiting.h"
#include "python/libtorch/tensor_io.h"

namespace py = pybind11;
using py::arg;

namespace tensorshelf {
namespace {

AioCall CallOf(IoKind kind, py::handle buffer, std::variant<std::string, int> target, int64_t offset,
               bool validate = false) {
  return {.kind = kind,
          .tensor = TensorFrom(buffer, "buffer"),
          .target = std::move(target),
          .offset = offset,
          .validate = validate};
}

// aio_read and aio_write: a handle for one call.
template <IoKind kind>
int64_t RunOnce(const py::object& buffer, const py::object& filename, int64_t block_size, int64_t queue_depth,
                bool single_submit, bool overlap_events, bool validate) {
  const AioCall call = CallOf(kind, buffer, PathFrom(filename), 0, validate);
  PythonAioHandle handle({.block_size = block_size,
                          .queue_depth = queue_depth,
                          .single_submit = single_submit,
                          .overlap_events = overlap_events,
                          .intra_op_parallelism = 1});
  return handle.RunAlone(call);
}

int CopyTensor(const py::object& dest, const py::object& src) {
  const at::Tensor& to = TensorFrom(dest, "dest");
  const at::Tensor& from = TensorFrom(src, "src");
  for (const at::Tensor* tensor : {&to, &from}) ThrowIfError(CheckStorable(*tensor));
  if (to.scalar_type() != from.scalar_type() || to.sizes() != from.sizes()) {
    throw py::value_error(absl::StrCat("deepspeed_memcpy: dest and src differ in dtype or shape (", to.nbytes(),
                                       " and ", from.nbytes(), " bytes)"));
  }
  py::gil_scoped_release unlocked;
  CopyValues(from.resolve_conj().resolve_neg(), to);
  NoteWritten(to);
  return 0;
}

py::object NewLockedTensor(const void* owner, int64_t num_elem, const py::object& example) {
  const at::ScalarType type = TensorFrom(example, "the example tensor").scalar_type();
  at::Tensor tensor;
  const absl::Status status = WaitHere([&]() -> absl::Status {
    auto made = AioProcess::Get().locked().NewTensor(num_elem, type, owner);
    if (made.ok()) tensor = *std::move(made);
    return made.status();
  });
  if (!status.ok()) ThrowAioStatus(status, "");
  return ToPython(std::move(tensor));
}

bool FreeAddress(const void* address) {
  py::gil_scoped_release unlocked;
  return AioProcess::Get().locked().Free(address);
}

bool FreeLockedTensor(const py::object& object) {
  const at::Tensor& tensor = TensorFrom(object, "tensor");
  if (!tensor.is_cpu() || !tensor.has_storage() || tensor.numel() == 0) return false;
  return FreeAddress(tensor.const_data_ptr());
}

bool IsPinnedTensor(const py::object& object) {
  const at::Tensor& tensor = TensorFrom(object, "buffer");
  py::gil_scoped_release unlocked;
  return AioHandle::IsPinned(tensor);
}

// The class pin_handle: it owns what it allocates and has nothing else.
class PinHandle {
 public:
  PinHandle() = default;
  PinHandle(const PinHandle&) = delete;
  PinHandle& operator=(const PinHandle&) = delete;
  ~PinHandle() { AioProcess::Get().locked().Disown(this); }
};

class AioHandleClass : public PythonAioHandle {
 public:
  using PythonAioHandle::PythonAioHandle;
  ~AioHandleClass() { AioProcess::Get().locked().Disown(this); }
};

py::dict StatsOf(const AioHandleClass& self) {
  const IoEngineStats stats = self.stats();
  py::dict result;
  result["read_ops"] = stats.read_ops;
  result["write_ops"] = stats.write_ops;
  result["read_bytes"] = stats.read_bytes;
  result["write_bytes"] = stats.write_bytes;
  result["staged_bytes"] = stats.staged_bytes;
  result["resubmitted_ops"] = stats.resubmitted_ops;
  result["failed_ops"] = stats.failed_ops;
  return result;
}

template <typename Class>
void DefineLockedTensors(Class& definition) {
  using Self = typename Class::type;
  const auto make = [](const Self& self, int64_t num_elem, const py::object& example) {
    return NewLockedTensor(&self, num_elem, example);
  };
  definition.def(
      "new_cpu_locked_tensor", make, arg("num_elem"), arg("example_tensor"),
      "A 1-D CPU tensor of the example's dtype: page-aligned, page-locked, not initialised. OSError (ENOMEM) "
      "when RLIMIT_MEMLOCK does not allow it.");
  // As DeepSpeed spells it.
  definition.def("new_cpu_locked_tensor", make, arg("num_elem"), arg("example_tenosr"));
  definition.def(
      "is_pinned", [](const Self&, const py::object& buffer) { return IsPinnedTensor(buffer); }, arg("buffer"),
      "Whether the tensor is pinned by torch, or lies as a whole in one locked allocation of any handle.");
}

void DefineCalls(py::class_<AioHandleClass>& definition) {
  definition
      .def(
          "read",
          [](AioHandleClass& self, const py::object& buffer, const py::object& filename, bool validate,
             int64_t offset) {
            return self.RunAlone(CallOf(IoKind::kRead, buffer, PathFrom(filename), offset, validate));
          },
          arg("buffer"), arg("filename"), arg("validate"), arg("file_offset") = 0,
          "Reads the whole buffer. 0, or -1 for a missing file.")
      .def(
          "write",
          [](AioHandleClass& self, const py::object& buffer, const py::object& filename, bool validate,
             int64_t offset) {
            return self.RunAlone(CallOf(IoKind::kWrite, buffer, PathFrom(filename), offset, validate));
          },
          arg("buffer"), arg("filename"), arg("validate"), arg("file_offset") = 0,
          "Writes the whole buffer. 0, or -1 for a missing folder.");
  const auto run = [](AioHandleClass& self, IoKind kind, const py::object& buffer, const py::object& filename,
                      bool validate, bool async, int64_t offset) {
    const AioCall call = CallOf(kind, buffer, PathFrom(filename), offset, validate);
    return async ? self.RunLater(call) : self.RunAndWait(call);
  };
  definition
      .def(
          "pread",
          [run](AioHandleClass& self, const py::object& buffer, const py::object& filename, bool validate, bool async,
                int64_t offset) { return run(self, IoKind::kRead, buffer, filename, validate, async, offset); },
          arg("buffer"), arg("filename"), arg("validate"), arg("async"), arg("file_offset") = 0,
          "As sync_pread or async_pread.")
      .def(
          "pwrite",
          [run](AioHandleClass& self, const py::object& buffer, const py::object& filename, bool validate, bool async,
                int64_t offset) { return run(self, IoKind::kWrite, buffer, filename, validate, async, offset); },
          arg("buffer"), arg("filename"), arg("validate"), arg("async"), arg("file_offset") = 0,
          "As sync_pwrite or async_pwrite.")
      .def(
          "sync_pread",
          [run](AioHandleClass& self, const py::object& buffer, const py::object& filename, int64_t offset) {
            return run(self, IoKind::kRead, buffer, filename, false, false, offset);
          },
          arg("buffer"), arg("filename"), arg("file_offset") = 0,
          "Reads, and waits for what is pending: 1 and the number of those. -1 for a missing file.")
      .def(
          "sync_pwrite",
          [run](AioHandleClass& self, const py::object& buffer, const py::object& filename, int64_t offset) {
            return run(self, IoKind::kWrite, buffer, filename, false, false, offset);
          },
          arg("buffer"), arg("filename"), arg("file_offset") = 0,
          "Writes, and waits for what is pending: 1 and the number of those. -1 for a missing folder.")
      .def(
          "async_pread",
          [run](AioHandleClass& self, const py::object& buffer, const py::object& filename, int64_t offset) {
            return run(self, IoKind::kRead, buffer, filename, false, true, offset);
          },
          arg("buffer"), arg("filename"), arg("file_offset") = 0,
          "Starts a read; the buffer is complete after wait(). 0, or -1 for a missing file.")
      .def(
          "async_pwrite",
          [](AioHandleClass& self, const py::object& buffer, const py::int_& fd, int64_t offset) {
            return self.RunLater(CallOf(IoKind::kWrite, buffer, fd.cast<int>(), offset));
          },
          arg("buffer"), arg("fd"), arg("file_offset") = 0,
          "The same on an open file descriptor, which is never closed.")
      .def(
          "async_pwrite",
          [run](AioHandleClass& self, const py::object& buffer, const py::object& filename, int64_t offset) {
            return run(self, IoKind::kWrite, buffer, filename, false, true, offset);
          },
          arg("buffer"), arg("filename"), arg("file_offset") = 0,
          "Starts a write, which wait() ends. 0, or -1 for a missing folder. A pinned buffer must not change before "
          "that; any other has been copied, as far as it needs to be, when this returns.")
      .def("wait", &AioHandleClass::WaitAll,
           "Waits for every call since the last wait: their number. Raises the first error among them, when all have "
           "ended.");
}

void DefineHandle(py::module_& module) {
  py::class_<AioHandleClass> definition(module, "aio_handle",
                                        "DeepSpeed's aio_handle on tensorshelf's engine. Thread-safe.");
  definition.def(py::init([](int64_t block_size, int64_t queue_depth, bool single_submit, bool overlap_events,
                             int64_t intra_op_parallelism) {
                   return std::make_unique<AioHandleClass>(AioSettings{.block_size = block_size,
                                                                       .queue_depth = queue_depth,
                                                                       .single_submit = single_submit,
                                                                       .overlap_events = overlap_events,
                                                                       .intra_op_parallelism = intra_op_parallelism});
                 }),
                 arg("block_size") = int64_t{1} << 20, arg("queue_depth") = 128, arg("single_submit") = false,
                 arg("overlap_events") = false, arg("intra_op_parallelism") = 1);
  const auto parallelism = [](const AioHandleClass& self) { return self.settings().intra_op_parallelism; };
  definition.def("get_block_size", [](const AioHandleClass& self) { return self.settings().block_size; })
      .def("get_queue_depth", [](const AioHandleClass& self) { return self.settings().queue_depth; })
      .def("get_single_submit", [](const AioHandleClass& self) { return self.settings().single_submit; })
      .def("get_overlap_events", [](const AioHandleClass& self) { return self.settings().overlap_events; })
      .def("get_intra_op_parallelism", parallelism)
      .def("get_thread_count", parallelism)
      .def("get_alignment", [parallelism](const AioHandleClass& self) { return 512 * parallelism(self); })
      .def("stats", &StatsOf, "Counters of this handle's engine since it was made.");
  DefineCalls(definition);
  DefineLockedTensors(definition);
  definition.def(
      "free_cpu_locked_tensor",
      [](const AioHandleClass&, const py::object& tensor) { return FreeLockedTensor(tensor); }, arg("tensor"),
      "True if the tensor begins where a live locked allocation begins, which it then is no more.");
  definition.attr("__module__") = "tensorshelf.aio";
}

void DefinePinHandle(py::module_& module) {
  py::class_<PinHandle> definition(module, "pin_handle", "DeepSpeed's pin_handle. Thread-safe.");
  definition.def(py::init<>());
  DefineLockedTensors(definition);
  definition
      .def(
          "free_cpu_locked_tensor", [](const PinHandle&, const py::object& tensor) { return FreeLockedTensor(tensor); },
          arg("locked_tensor"))
      .def(
          "free_cpu_locked_tensor_by_ptr",
          [](const PinHandle&, uintptr_t address) { return FreeAddress(reinterpret_cast<const void*>(address)); },
          arg("address"));
  definition.attr("__module__") = "tensorshelf.aio";
}

}  // namespace

void DefineAio(py::module_& core) {
  py::module_ module = core.def_submodule("aio");
  DefineHandle(module);
  DefinePinHandle(module);
  module.def("aio_read", &RunOnce<IoKind::kRead>, arg("buffer"), arg("filename"), arg("block_size"), arg("queue_depth"),
             arg("single_submit"), arg("overlap_events"), arg("validate"),
             "Reads the whole buffer from the start of a file. 0, or -1 for a missing file.");
  module.def("aio_write", &RunOnce<IoKind::kWrite>, arg("buffer"), arg("filename"), arg("block_size"),
             arg("queue_depth"), arg("single_submit"), arg("overlap_events"), arg("validate"),
             "Writes the whole buffer to the start of a file, creating it, never cutting it. 0, or -1 for a missing "
             "folder.");
  module.def("deepspeed_memcpy", &CopyTensor, arg("dest"), arg("src"),
             "Copies between tensors of one dtype and shape, of any strides. 0.");
  module.def("_drain", &PythonAioHandle::DrainEvery);
}

}  // namespace tensorshelf
