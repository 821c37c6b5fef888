// Messages of the store's threads on their way to Python's logging. Those threads must never wait for the interpreter
// lock (its holder may be waiting for them), so messages queue here and are delivered by the next call from Python.

#ifndef TENSORSHELF_PYTHON_BINDINGS_NOTICES_H_
#define TENSORSHELF_PYTHON_BINDINGS_NOTICES_H_

#include <atomic>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace tensorshelf {

// Thread-safe.
class Notices {
 public:
  void Add(const std::string& message);
  // logging.getLogger("tensorshelf").warning(...) for each. Needs the interpreter lock; cheap when there are none.
  void Deliver();

 private:
  std::atomic<bool> waiting_{false};  // a hint, so that most calls of Deliver take no mutex
  absl::Mutex mutex_;
  std::vector<std::string> messages_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_NOTICES_H_
