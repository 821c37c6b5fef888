// One page of tensorshelf watch, as pure functions of what was read from a live store.

#ifndef TENSORSHELF_TOOLS_CLI_WATCH_PAGE_H_
#define TENSORSHELF_TOOLS_CLI_WATCH_PAGE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "store/live_file.h"
#include "tools/cli/console.h"
#include "tools/cli/json_output.h"

namespace tensorshelf::cli {

struct WatchReading {
  LiveReading live;
  int64_t read_ns = 0;  // of the system clock
};

// `before` is absent on the first page, and where another writer has come meanwhile: rates and latencies are then those
// since the store was opened.
struct WatchPage {
  WatchReading now;
  std::optional<WatchReading> before;
};

// The time that lies between the counts of the two readings, or since the opening. Above zero.
double SecondsOf(const WatchPage& page);
double OpenSecondsOf(const WatchReading& reading);
// Whether both are of one opening of the store.
bool SameWriter(const LivePage& a, const LivePage& b);

// Lines of at most console.columns where the console is a terminal.
std::string RenderWatch(const WatchPage& page, const Console& console);
Json WatchJson(const WatchPage& page);

// "850 ns", "12.3 us", "4.0 ms", "1.2 s"
std::string FormatLatency(double nanoseconds);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_WATCH_PAGE_H_
