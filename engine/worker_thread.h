// Starts the engine's threads.

#ifndef TENSORSHELF_ENGINE_WORKER_THREAD_H_
#define TENSORSHELF_ENGINE_WORKER_THREAD_H_

#include <functional>
#include <string>
#include <thread>

#include "absl/status/statusor.h"

namespace tensorshelf {

// A thread named `name` (at most 15 bytes) that blocks every signal, so that the program's own threads receive them.
// ResourceExhausted when the system refuses one.
absl::StatusOr<std::thread> StartThread(const std::string& name, std::function<void()> body);

}  // namespace tensorshelf

#endif  // TENSORSHELF_ENGINE_WORKER_THREAD_H_
