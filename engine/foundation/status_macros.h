// Error plumbing that every C++ folder uses: early return on a bad status, and a check of our own invariants that
// stays on in release builds.
//
// Operating errors (input, disk, kernel) are absl::Status values and never reach TS_CHECK. A failed TS_CHECK means that
// this program is wrong; it writes one line to standard error and aborts, before wrong bytes can be written.

#ifndef TENSORSHELF_ENGINE_FOUNDATION_STATUS_MACROS_H_
#define TENSORSHELF_ENGINE_FOUNDATION_STATUS_MACROS_H_

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace tensorshelf {

// The same code and payloads with `context: ` before the message; OK stays OK. Context is added once, where it is
// known: file and offset in the engine, tensor name in the store.
inline absl::Status Annotate(const absl::Status& status, const std::string& context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) { annotated.SetPayload(url, payload); });
  return annotated;
}

namespace status_internal {

[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "tensorshelf: broken invariant at %s:%d: %s\n", file, line, condition);
  std::abort();
}

}  // namespace status_internal
}  // namespace tensorshelf

#define TS_CHECK(condition) \
  ((condition) ? (void)0 : ::tensorshelf::status_internal::CheckFailed(__FILE__, __LINE__, #condition))

#define TS_RETURN_IF_ERROR(expression)        \
  do {                                        \
    ::absl::Status ts_status_ = (expression); \
    if (!ts_status_.ok()) return ts_status_;  \
  } while (false)

#define TS_STATUS_CONCAT_INNER_(a, b) a##b
#define TS_STATUS_CONCAT_(a, b) TS_STATUS_CONCAT_INNER_(a, b)

// `declaration` may define a variable: TS_ASSIGN_OR_RETURN(auto file, disk.Open(path, options));
#define TS_ASSIGN_OR_RETURN(declaration, expression) \
  TS_ASSIGN_OR_RETURN_IMPL_(TS_STATUS_CONCAT_(ts_status_or_, __LINE__), declaration, expression)
#define TS_ASSIGN_OR_RETURN_IMPL_(name, declaration, expression) \
  auto name = (expression);                                      \
  if (!name.ok()) return std::move(name).status();               \
  declaration = std::move(name).value()

#endif  // TENSORSHELF_ENGINE_FOUNDATION_STATUS_MACROS_H_
