#include "python/bindings/notices.h"

#include <pybind11/pybind11.h>

#include <utility>

namespace py = pybind11;

namespace tensorshelf {

void Notices::Add(const std::string& message) {
  absl::MutexLock lock(&mutex_);
  messages_.push_back(message);
  waiting_.store(true, std::memory_order_relaxed);
}

void Notices::Deliver() {
  if (!waiting_.load(std::memory_order_relaxed)) return;
  std::vector<std::string> messages;
  {
    absl::MutexLock lock(&mutex_);
    messages.swap(messages_);
    waiting_.store(false, std::memory_order_relaxed);
  }
  const py::object logger = py::module_::import("logging").attr("getLogger")("tensorshelf");
  for (const std::string& message : messages) logger.attr("warning")("%s", message);
}

}  // namespace tensorshelf
