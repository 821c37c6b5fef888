#include "python/bindings/space.h"

#include <pybind11/stl.h>

#include <exception>
#include <utility>

#include "engine/foundation/status_macros.h"
#include "python/bindings/errors.h"
#include "python/bindings/waiting.h"
#include "store/compact.h"
#include "store/drain.h"
#include "store/grow_store.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

py::dict ToDict(const SpaceShape& shape) {
  py::dict dict;
  dict["fragmentation"] = shape.fragmentation;
  dict["free"] = shape.free_bytes;
  dict["largest_free"] = shape.largest_free;
  dict["free_runs"] = shape.free_runs;
  return dict;
}

// Tells a Python function how far it is. The first exception is kept, and says stop from then on.
class MoveProgress {
 public:
  explicit MoveProgress(py::object function) : function_(std::move(function)) {}

  void Report(uint64_t objects_moved, uint64_t bytes_moved) {
    if (failure_ != nullptr || function_.is_none()) return;
    py::gil_scoped_acquire locked;
    try {
      function_(objects_moved, bytes_moved);
    } catch (const py::error_already_set&) {
      failure_ = std::current_exception();
    }
  }
  bool failed() const { return failure_ != nullptr; }
  // With the interpreter lock, after the work.
  void Rethrow() const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

 private:
  py::object function_;
  std::exception_ptr failure_;
};

}  // namespace

py::dict CompactStore(const std::shared_ptr<StoreHandle>& handle, uint64_t rate, bool dry_run,
                      const py::object& progress) {
  Store& store = handle->store();
  MoveProgress reporter(progress);
  CompactReport report;
  const absl::Status status = WaitLong([&](const Interrupted& interrupted) -> absl::Status {
    const CompactOptions options{
        .rate_bytes_per_s = rate,
        .dry_run = dry_run,
        .stop = [&] { return reporter.failed() || !CheckInterrupted(interrupted).ok(); },
        .progress = [&](const CompactReport& so_far) { reporter.Report(so_far.objects_moved, so_far.bytes_moved); }};
    TS_ASSIGN_OR_RETURN(report, store.Compact(options));
    return absl::OkStatus();
  });
  handle->notices().Deliver();
  reporter.Rethrow();
  ThrowIfError(status, ErrorSubject::kStore);
  py::dict dict;
  dict["objects_moved"] = report.objects_moved;
  dict["bytes_moved"] = report.bytes_moved;
  dict["skipped"] = report.objects_skipped;
  dict["damaged"] = report.objects_damaged;
  dict["damage"] = report.damage;
  dict["before"] = ToDict(report.before);
  dict["after"] = ToDict(report.after);
  return dict;
}

py::dict GrowOpenStore(const std::shared_ptr<StoreHandle>& handle, uint64_t capacity,
                       const std::vector<std::string>& devices) {
  Store& store = handle->store();
  GrowReport report;
  const absl::Status status = WaitLong([&](const Interrupted&) -> absl::Status {
    TS_ASSIGN_OR_RETURN(report, store.Grow({.capacity = capacity, .devices = devices}));
    return absl::OkStatus();
  });
  handle->notices().Deliver();
  ThrowIfError(status, ErrorSubject::kStore);
  py::dict dict;
  dict["files"] = report.files;
  dict["capacity"] = report.capacity;
  dict["commit"] = report.commit;
  return dict;
}

py::dict DrainDevice(const std::shared_ptr<StoreHandle>& handle, const std::string& device, uint64_t rate,
                     const py::object& progress) {
  Store& store = handle->store();
  MoveProgress reporter(progress);
  DrainReport report;
  const absl::Status status = WaitLong([&](const Interrupted& interrupted) -> absl::Status {
    const DrainOptions options{
        .rate_bytes_per_s = rate,
        .stop = [&] { return reporter.failed() || !CheckInterrupted(interrupted).ok(); },
        .progress = [&](const DrainReport& so_far) { reporter.Report(so_far.objects_moved, so_far.bytes_moved); }};
    TS_ASSIGN_OR_RETURN(report, store.Drain(device, options));
    return absl::OkStatus();
  });
  handle->notices().Deliver();
  reporter.Rethrow();
  ThrowIfError(status, ErrorSubject::kStore);
  py::dict dict;
  dict["files"] = report.files;
  dict["objects_moved"] = report.objects_moved;
  dict["bytes_moved"] = report.bytes_moved;
  dict["commit"] = report.commit;
  return dict;
}

}  // namespace tensorshelf
