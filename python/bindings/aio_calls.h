// How Python's calls of tensorshelf.aio wait, what they return, and what they raise.

#ifndef TENSORSHELF_PYTHON_BINDINGS_AIO_CALLS_H_
#define TENSORSHELF_PYTHON_BINDINGS_AIO_CALLS_H_

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <string>

#include "python/aio/aio_handle.h"
#include "python/bindings/handles.h"

namespace tensorshelf {

// ValueError, TypeError and OSError with errno and `path` (may be empty). `status` must not be OK.
[[noreturn]] void ThrowAioStatus(const absl::Status& status, const std::string& path);

// str, bytes or os.PathLike.
std::string PathFrom(pybind11::handle path);

// The class aio_handle. Its methods are called with the interpreter lock and let go of it wherever they may wait.
// -1 is returned for a missing file and a missing folder, and then nothing was started.
class PythonAioHandle {
 public:
  explicit PythonAioHandle(const AioSettings& settings);
  PythonAioHandle(const PythonAioHandle&) = delete;
  PythonAioHandle& operator=(const PythonAioHandle&) = delete;
  // Waits for what is pending. Nobody is there to receive an error: it is logged.
  ~PythonAioHandle();

  // 1, and what waited before; or -1.
  int64_t RunAndWait(const AioCall& call);
  // 0 or -1. What waits goes on waiting.
  int64_t RunAlone(const AioCall& call);
  // 0 or -1.
  int64_t RunLater(const AioCall& call);
  // The number of calls that waited. Of several that failed the first is raised; its message counts the others.
  int64_t WaitAll();

  const AioSettings& settings() const { return settings_; }
  IoEngineStats stats() const { return handle().stats(); }

  // For the end of the interpreter: every handle's pending calls are waited for.
  static void DrainEvery();

 private:
  AioHandle& handle() const;  // throws ForkedError in a forked child
  void Drain();

  const AioSettings settings_;
  ForkSafe<AioHandle> handle_;
};

// Logs what the shared parts had to say since the last call.
void DeliverAioNotices();

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_AIO_CALLS_H_
