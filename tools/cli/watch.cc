// tensorshelf watch: what a live writer does now, from the page that it keeps in the shelf.

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/foundation/status_macros.h"
#include "engine/linux_disk.h"
#include "store/name.h"
#include "tools/cli/json_output.h"
#include "tools/cli/run.h"
#include "tools/cli/text.h"
#include "tools/cli/verb.h"
#include "tools/cli/watch_page.h"

namespace tensorshelf::cli {
namespace {

struct WatchArguments : CommonOptions {
  std::string interval = "1s";
  uint64_t count = 0;  // 0: without end
};

absl::StatusOr<absl::Duration> ParseInterval(const std::string& text) {
  absl::Duration interval;
  double seconds = 0;
  if (absl::SimpleAtod(text, &seconds)) {
    interval = absl::Seconds(seconds);
  } else if (!absl::ParseDuration(text, &interval)) {
    interval = absl::ZeroDuration();
  }
  if (interval < absl::Milliseconds(10) || interval > absl::Hours(24)) {
    return UsageError(
        absl::StrCat("'", EscapeForTerminal(text), "' is not an interval such as 1s, 500ms or 2m, from 10ms to 24h"));
  }
  return interval;
}

// Over the last page, without a moment of an empty screen in between.
std::string InPlace(const std::string& page) {
  std::string text = "\x1b[H";
  for (const char c : page) absl::StrAppend(&text, c == '\n' ? "\x1b[K\n" : std::string(1, c));
  return text + "\x1b[J";
}

absl::Status ShowPages(const WatchArguments& arguments, absl::Duration interval, Console& console) {
  const std::unique_ptr<Disk> disk = NewLinuxDisk();
  WatchPage page;
  for (uint64_t shown = 0; arguments.count == 0 || shown < arguments.count; ++shown) {
    if (shown > 0) absl::SleepFor(interval);
    WatchReading reading;
    TS_ASSIGN_OR_RETURN(reading.live, ReadLive(*disk, arguments.shelf));
    reading.read_ns = absl::ToUnixNanos(absl::Now());
    page.before.reset();
    if (shown > 0 && SameWriter(page.now.live.page, reading.live.page)) page.before = std::move(page.now);
    page.now = std::move(reading);
    if (arguments.json) {
      console.out << DumpLine(WatchJson(page)) << "\n";
    } else if (console.terminal) {
      if (console.ask_columns != nullptr) console.columns = console.ask_columns();
      console.out << (shown == 0 ? "\x1b[2J" : "") << InPlace(RenderWatch(page, console));
    } else {
      console.out << (shown == 0 ? "" : "\n") << RenderWatch(page, console);
    }
    console.out.flush();
    if (!console.out) return absl::OkStatus();  // whoever read it has gone; Run says so
  }
  return absl::OkStatus();
}

absl::StatusOr<ExitStatus> RunWatch(const WatchArguments& arguments, Console& console) {
  TS_ASSIGN_OR_RETURN(const absl::Duration interval, ParseInterval(arguments.interval));
  const absl::Status status = ShowPages(arguments, interval, console);
  if (status.ok()) return ExitStatus::kClean;
  if (!arguments.json) return status;
  // One document a line, the last one too.
  console.out << DumpLine(ErrorJson("watch", arguments.shelf, status)) << "\n";
  console.err << "tensorshelf watch: " << PrintableMessage(std::string(status.message())) << "\n";
  return ExitStatusOf(status);
}

}  // namespace

Verb AddWatch(CLI::App& app) {
  auto arguments = std::make_shared<WatchArguments>();
  CommandLine line(
      app, "watch",
      "Show what the program that writes to the shelf does: rates, latencies, queues, space. Exit status 8 "
      "when nobody writes to it, or no longer.",
      arguments.get());
  line.Text("--interval", &arguments->interval, "time between two pages: 1s (the default), 500ms, 2m");
  line.Number("--count", &arguments->count, "pages to show; without it, until the writer ends or Ctrl-C", 1,
              1'000'000'000);
  return {line.command(), arguments, [arguments](Console& console) { return RunWatch(*arguments, console); }};
}

}  // namespace tensorshelf::cli
