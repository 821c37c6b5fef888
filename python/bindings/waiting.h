// How a call waits: without the interpreter lock, and so that Ctrl-C gets through.

#ifndef TENSORSHELF_PYTHON_BINDINGS_WAITING_H_
#define TENSORSHELF_PYTHON_BINDINGS_WAITING_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/status/status.h"

namespace tensorshelf {

// Transfers of this size and more are worth a thread of their own.
inline constexpr uint64_t kLongWaitBytes = uint64_t{4} << 20;
// Long transfers go in steps of this size, between which an interrupted call stops.
inline constexpr uint64_t kStepBytes = uint64_t{2} << 30;

// Set once a signal handler has raised. The work then ends as soon as nothing of it is in flight, with Cancelled.
using Interrupted = std::atomic<bool>;

// Both run `work` without the interpreter lock and return its status; C++ exceptions pass through. Called with the lock
// held.

// On this thread: for waits that are short.
absl::Status WaitHere(const std::function<absl::Status()>& work);

// On the main thread of Python, `work` runs on another thread, while this one runs signal handlers ten times a second.
// When one raises (KeyboardInterrupt), the work is still waited for, since it holds memory of the caller; then the
// exception goes on. Threads other than the main one never get signals: there it is WaitHere.
absl::Status WaitLong(const std::function<absl::Status(const Interrupted&)>& work);

// WaitLong for `bytes` of kLongWaitBytes and more, else WaitHere.
absl::Status WaitFor(uint64_t bytes, const std::function<absl::Status(const Interrupted&)>& work);

// Cancelled when interrupted.
absl::Status CheckInterrupted(const Interrupted& interrupted);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_WAITING_H_
