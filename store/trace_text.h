// A trace as JSON in Chrome's trace event format, which chrome://tracing and ui.perfetto.dev show.
//
// Two processes: the store, with a track for each thread that did operations, and its devices, with as many tracks each
// as it had transfers at a time. Times are microseconds since the trace began.

#ifndef TENSORSHELF_STORE_TRACE_TEXT_H_
#define TENSORSHELF_STORE_TRACE_TEXT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "engine/foundation/trace_log.h"

namespace tensorshelf {

struct TraceSource {
  std::string store;                 // path
  uint32_t pid = 0;                  // of the process that did it
  std::vector<std::string> devices;  // what to call them, by TraceEvent::lane
};

std::string ChromeTrace(const Trace& trace, const TraceSource& source);

}  // namespace tensorshelf

#endif  // TENSORSHELF_STORE_TRACE_TEXT_H_
