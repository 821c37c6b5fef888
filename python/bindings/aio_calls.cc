#include "python/bindings/aio_calls.h"

#include <cerrno>
#include <functional>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/foundation/status_macros.h"
#include "python/bindings/errors.h"
#include "python/bindings/notices.h"
#include "python/bindings/waiting.h"
#include "store/errors.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

constexpr absl::Duration kSignalPoll = absl::Milliseconds(100);

// Both guarded by the interpreter lock. Never destroyed.
std::set<PythonAioHandle*>& LiveHandles() {
  static auto* const handles = new std::set<PythonAioHandle*>;
  return *handles;
}

Notices& AioNotices() {
  static Notices* const notices = [] {
    auto* made = new Notices;
    AioProcess::Get().SetNotice([made](const std::string& message) { made->Add(message); });
    return made;
  }();
  return *notices;
}

// For an error that nobody can be told by an exception.
void LogError(const absl::Status& status) {
  py::module_::import("logging").attr("getLogger")("tensorshelf").attr("error")("%s", std::string(status.message()));
}

// Polls `wait` to its end without the interpreter lock, running signal handlers in between. What one raises comes back:
// transfers hold memory of the caller, so it must not go on before they have ended.
std::unique_ptr<py::error_already_set> WaitThrough(const std::function<bool(absl::Duration)>& wait) {
  std::unique_ptr<py::error_already_set> raised;
  for (bool over = false; !over;) {
    {
      py::gil_scoped_release unlocked;
      over = wait(kSignalPoll);
    }
    if (!over && raised == nullptr && PyErr_CheckSignals() != 0) raised = std::make_unique<py::error_already_set>();
  }
  return raised;
}

// What became of several operations: the first error, and how many more there were.
struct Outcome {
  absl::Status status;
  std::string path;
  size_t failed_count = 0;
  std::unique_ptr<py::error_already_set> raised;

  void Add(const Operation& operation, const absl::Status& result) {
    if (result.ok()) return;
    if (failed_count++ > 0) return;
    status = result;
    path = operation.request().path;
  }

  void ThrowIfAny() {
    if (failed_count > 1) {
      status = absl::Status(status.code(),
                            absl::StrCat(std::string(status.message()), " (", failed_count - 1, " more failed)"));
    }
    if (raised != nullptr) {
      if (failed_count > 0) LogError(status);
      throw *raised;
    }
    if (failed_count > 0) ThrowAioStatus(status, path);
  }
};

void Finish(Operation& operation, Outcome* outcome) {
  auto raised = WaitThrough([&](absl::Duration patience) { return operation.WaitFor(patience); });
  if (outcome->raised == nullptr) outcome->raised = std::move(raised);
  absl::Status status;
  {
    py::gil_scoped_release unlocked;
    status = operation.Conclude();
  }
  outcome->Add(operation, status);
}

void FinishRound(AioHandle& handle, const AioHandle::Round& round, Outcome* outcome) {
  for (const auto& operation : round.mine) Finish(*operation, outcome);
  handle.Concluded(round);
  for (const auto& operation : round.others) {
    auto raised = WaitThrough([&](absl::Duration patience) { return operation->WaitConcludedFor(patience); });
    if (outcome->raised == nullptr) outcome->raised = std::move(raised);
  }
}

std::string PathOf(const AioCall& call) {
  const std::string* path = std::get_if<std::string>(&call.target);
  return path != nullptr ? *path : "";
}

using Starter = absl::StatusOr<std::shared_ptr<Operation>> (AioHandle::*)(const AioCall&);

// Null for a missing file or folder.
std::shared_ptr<Operation> StartOrThrow(AioHandle& handle, Starter starter, const AioCall& call) {
  absl::StatusOr<std::shared_ptr<Operation>> started;
  {
    py::gil_scoped_release unlocked;
    started = (handle.*starter)(call);
  }
  DeliverAioNotices();
  if (started.ok()) return *std::move(started);
  if (absl::IsNotFound(started.status())) return nullptr;
  ThrowAioStatus(started.status(), PathOf(call));
}

}  // namespace

void ThrowAioStatus(const absl::Status& status, const std::string& path) {
  int error_number = ErrorNumberOf(status);
  if (error_number == 0) {
    switch (status.code()) {
      case absl::StatusCode::kInvalidArgument:
      case absl::StatusCode::kUnimplemented:
        ThrowStatus(status);
      case absl::StatusCode::kDataLoss:
        error_number = ENODATA;
        break;
      case absl::StatusCode::kResourceExhausted:
        error_number = EAGAIN;
        break;
      default:
        error_number = EIO;
    }
  }
  const py::str message = py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(
      status.message().data(), static_cast<Py_ssize_t>(status.message().size()), "backslashreplace"));
  py::object filename = py::none();
  if (!path.empty()) {
    filename = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeFSDefaultAndSize(path.data(), static_cast<Py_ssize_t>(path.size())));
  }
  const py::object os_error = py::reinterpret_borrow<py::object>(PyExc_OSError);
  const py::object exception = os_error(error_number, message, filename);  // picks the subclass by the number
  PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
  throw py::error_already_set();
}

std::string PathFrom(py::handle path) {
  PyObject* bytes = nullptr;
  if (PyUnicode_FSConverter(path.ptr(), &bytes) == 0) throw py::error_already_set();
  return py::reinterpret_steal<py::bytes>(bytes).cast<std::string>();
}

void DeliverAioNotices() { AioNotices().Deliver(); }

PythonAioHandle::PythonAioHandle(const AioSettings& settings) : settings_(settings) {
  AioNotices();
  std::unique_ptr<AioHandle> made;
  const absl::Status status = WaitHere([&]() -> absl::Status {
    TS_ASSIGN_OR_RETURN(made, AioHandle::Create(settings));
    return absl::OkStatus();
  });
  DeliverAioNotices();
  if (!status.ok()) ThrowAioStatus(status, "");
  handle_ = ForkSafe<AioHandle>(std::move(made));
  LiveHandles().insert(this);
}

PythonAioHandle::~PythonAioHandle() {
  LiveHandles().erase(this);
  Drain();
}

void PythonAioHandle::Drain() {
  if (handle_.get() == nullptr || handle_.forked()) return;
  Outcome outcome;
  const AioHandle::Round round = handle_->TakeQueued();
  for (const auto& operation : round.mine) {
    absl::Status status;
    {
      py::gil_scoped_release unlocked;
      operation->Wait();
      status = operation->Conclude();
    }
    outcome.Add(*operation, status);
  }
  handle_->Concluded(round);
  if (outcome.failed_count == 0) return;
  // A destructor: whatever Python's logging does, nothing leaves it.
  try {
    LogError(
        absl::InternalError(absl::StrCat("of ", round.mine.size(), " operations that nobody waited for, ",
                                         outcome.failed_count, " failed: ", std::string(outcome.status.message()))));
  } catch (py::error_already_set& error) {
    error.discard_as_unraisable("aio_handle");
  }
}

void PythonAioHandle::DrainEvery() {
  const std::set<PythonAioHandle*> handles = LiveHandles();
  for (PythonAioHandle* handle : handles) {
    // Waiting lets go of the lock, and the handle may go meanwhile.
    if (LiveHandles().contains(handle)) handle->Drain();
  }
}

AioHandle& PythonAioHandle::handle() const {
  if (handle_.forked()) {
    ThrowStatus(MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kForked,
                          "this aio_handle belongs to the parent of this process; make another one here"));
  }
  return *handle_;
}

int64_t PythonAioHandle::RunAndWait(const AioCall& call) {
  const std::shared_ptr<Operation> operation = StartOrThrow(handle(), &AioHandle::StartAndStay, call);
  if (operation == nullptr) return -1;
  Outcome outcome;
  Finish(*operation, &outcome);
  const AioHandle::Round round = handle().TakeQueued();
  FinishRound(handle(), round, &outcome);
  outcome.ThrowIfAny();
  return 1 + static_cast<int64_t>(round.mine.size());
}

int64_t PythonAioHandle::RunAlone(const AioCall& call) {
  const std::shared_ptr<Operation> operation = StartOrThrow(handle(), &AioHandle::StartAndStay, call);
  if (operation == nullptr) return -1;
  Outcome outcome;
  Finish(*operation, &outcome);
  outcome.ThrowIfAny();
  return 0;
}

int64_t PythonAioHandle::RunLater(const AioCall& call) {
  std::shared_ptr<Operation> operation = StartOrThrow(handle(), &AioHandle::Start, call);
  if (operation == nullptr) return -1;
  handle().Queue(std::move(operation));
  return 0;
}

int64_t PythonAioHandle::WaitAll() {
  const AioHandle::Round round = handle().TakeQueued();
  Outcome outcome;
  FinishRound(handle(), round, &outcome);
  outcome.ThrowIfAny();
  return static_cast<int64_t>(round.mine.size());
}

}  // namespace tensorshelf
