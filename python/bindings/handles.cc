#include "python/bindings/handles.h"

#include <pybind11/stl.h>

#include <exception>
#include <mutex>

#include "python/bindings/errors.h"
#include "python/bindings/forked_exit.h"
#include "python/bindings/waiting.h"

namespace py = pybind11;

namespace tensorshelf {
namespace {

// options[key] -> *to, if it is there.
template <typename T>
void Take(const py::dict& options, const char* key, T* to) {
  if (options.contains(key)) *to = options[key].cast<T>();
}

StoreOptions OptionsFrom(const py::dict& values) {
  StoreOptions options;
  bool read_only = false;
  std::string trailers = "large";
  Take(values, "read_only", &read_only);
  Take(values, "devices", &options.devices);
  Take(values, "degraded", &options.degraded);
  Take(values, "staging_bytes", &options.staging_bytes);
  Take(values, "result_pool_bytes", &options.result_pool_bytes);
  Take(values, "memory_bytes", &options.memory_bytes);
  Take(values, "page_locked", &options.page_locked);
  Take(values, "inline_bytes_max", &options.inline_bytes_max);
  Take(values, "background_fill", &options.background_fill);
  Take(values, "record_cache_bytes", &options.index.record_cache_bytes);
  Take(values, "worker_count", &options.io.worker_count);
  Take(values, "queue_depth", &options.io.queue_depth);
  Take(values, "io_size", &options.io.io_size);
  Take(values, "use_tuning", &options.use_tuning);
  Take(values, "trailers", &trailers);
  options.mode = read_only ? StoreOptions::Mode::kReadOnly : StoreOptions::Mode::kReadWrite;
  options.trailers = trailers == "all"    ? TrailerPolicy::kAll
                     : trailers == "none" ? TrailerPolicy::kNone
                                          : TrailerPolicy::kLarge;
  return options;
}

// Calls a Python function from the thread on which the store works. The first exception is kept and ends the calls.
class Progress {
 public:
  explicit Progress(py::object function) : function_(std::move(function)) {}

  void Report(uint64_t done, uint64_t total) {
    py::gil_scoped_acquire locked;
    if (failure_ != nullptr) return;
    try {
      function_(done, total);
    } catch (const py::error_already_set&) {
      failure_ = std::current_exception();
    }
  }
  // With the interpreter lock, after the work.
  void Rethrow() const {
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

 private:
  py::object function_;
  std::exception_ptr failure_;
};

}  // namespace

Store& StoreHandle::store() const {
  if (forked()) {
    ThrowStatus(
        MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kForked,
                  "this handle belongs to the process that opened the store, and this is a forked child of it; open "
                  "the store here with mode=\"r\", or start workers by \"spawn\", to which a read-only handle is "
                  "pickled"));
  }
  return *store_;
}

const View* ViewHandle::get() const {
  store->store();
  if (view.get() == nullptr) ThrowClosed("this view");
  return view.get();
}

std::shared_ptr<StoreHandle> OpenStore(const std::string& path, const py::dict& values) {
  StoreOptions options = OptionsFrom(values);
  const auto notices = std::make_shared<Notices>();
  options.notice = [notices](const std::string& message) { notices->Add(message); };
  std::unique_ptr<Store> store;
  const absl::Status status = WaitLong([&](const Interrupted&) {
    absl::StatusOr<std::unique_ptr<Store>> opened = Store::Open(path, options);
    if (opened.ok()) store = std::move(opened).value();
    return opened.status();
  });
  notices->Deliver();
  ThrowIfError(status, ErrorSubject::kStore);
  // Once for each mode: what the index sets up globally depends on it.
  static std::once_flag skipped[2];
  std::call_once(skipped[options.mode == StoreOptions::Mode::kReadOnly ? 1 : 0], SkipInheritedExitHandlers);
  return std::make_shared<StoreHandle>(std::move(store), notices);
}

void CreateStore(const std::string& path, const py::dict& values) {
  CreateOptions options;
  std::string prefill = "background";
  py::object progress = py::none();
  Take(values, "capacity", &options.capacity);
  Take(values, "devices", &options.devices);
  Take(values, "group_readable", &options.group_readable);
  Take(values, "prefill", &prefill);
  Take(values, "tune", &options.tune);
  Take(values, "progress", &progress);
  options.prefill = prefill == "none" ? Prefill::kNone : prefill == "full" ? Prefill::kFull : Prefill::kBackground;
  Progress reporter(progress);
  if (!progress.is_none()) options.progress = [&](uint64_t done, uint64_t total) { reporter.Report(done, total); };
  const absl::Status status = WaitLong([&](const Interrupted&) { return Store::Create(path, options); });
  ThrowIfError(status, ErrorSubject::kStore);
  reporter.Rethrow();
}

}  // namespace tensorshelf
