#include "python/bindings/waiting.h"

#include <pybind11/pybind11.h>

#include <exception>
#include <memory>
#include <thread>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

constexpr absl::Duration kSignalPoll = absl::Milliseconds(100);

bool OnMainThread() {
  const py::object threading = py::module_::import("threading");
  return threading.attr("main_thread")().attr("ident").cast<unsigned long>() == PyThread_get_thread_ident();
}

}  // namespace

absl::Status CheckInterrupted(const Interrupted& interrupted) {
  return interrupted.load(std::memory_order_relaxed) ? absl::CancelledError("interrupted") : absl::OkStatus();
}

absl::Status WaitHere(const std::function<absl::Status()>& work) {
  py::gil_scoped_release unlocked;
  return work();
}

absl::Status WaitLong(const std::function<absl::Status(const Interrupted&)>& work) {
  Interrupted interrupted{false};
  if (!OnMainThread()) return WaitHere([&] { return work(interrupted); });

  absl::Status status;
  std::exception_ptr failure;
  absl::Notification done;
  std::thread worker([&] {
    try {
      status = work(interrupted);
    } catch (...) {
      failure = std::current_exception();
    }
    done.Notify();
  });
  std::unique_ptr<py::error_already_set> raised;
  for (bool finished = false; !finished;) {
    {
      py::gil_scoped_release unlocked;
      finished = done.WaitForNotificationWithTimeout(kSignalPoll);
    }
    if (!finished && raised == nullptr && PyErr_CheckSignals() != 0) {
      raised = std::make_unique<py::error_already_set>();
      interrupted.store(true, std::memory_order_relaxed);
    }
  }
  worker.join();
  if (raised != nullptr) {
    raised->restore();
    throw py::error_already_set();
  }
  if (failure != nullptr) std::rethrow_exception(failure);
  return status;
}

absl::Status WaitFor(uint64_t bytes, const std::function<absl::Status(const Interrupted&)>& work) {
  if (bytes >= kLongWaitBytes) return WaitLong(work);
  const Interrupted never{false};
  return WaitHere([&] { return work(never); });
}

}  // namespace tensorshelf
