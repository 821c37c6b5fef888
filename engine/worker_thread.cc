#include "engine/worker_thread.h"

#include <pthread.h>
#include <signal.h>

#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tensorshelf {

absl::StatusOr<std::thread> StartThread(const std::string& name, std::function<void()> body) {
  // A new thread inherits the mask of its creator.
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  absl::StatusOr<std::thread> started = absl::InternalError("not started");
  // The only way in which std::thread tells that there is no room for one more.
  try {
    started = std::thread(std::move(body));
  } catch (const std::system_error& error) {
    started = absl::ResourceExhaustedError(absl::StrCat("thread ", name, ": ", error.what()));
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (started.ok()) pthread_setname_np(started->native_handle(), name.substr(0, 15).c_str());
  return started;
}

}  // namespace tensorshelf
