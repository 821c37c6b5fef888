#include "store/trace_text.h"

#include <algorithm>
#include <cstddef>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

constexpr uint32_t kTracksPerDevice = 10000;  // more than transfers are ever in flight at one device

// What is not printable or not UTF-8 comes out as EscapeForTerminal shows it, so that the result is UTF-8.
std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : EscapeForTerminal(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

std::string Microseconds(uint64_t nanoseconds) {
  return absl::StrFormat("%d.%03d", nanoseconds / 1000, nanoseconds % 1000);
}

// Gives each transfer of one device a track on which no other one is at that time.
class Tracks {
 public:
  uint32_t Place(const TraceEvent& event) {
    const auto free = std::find_if(ends_.begin(), ends_.end(), [&](uint64_t end) { return end <= event.begin_ns; });
    const auto track = static_cast<uint32_t>(free - ends_.begin());
    if (free == ends_.end()) {
      ends_.push_back(event.end_ns);
    } else {
      *free = event.end_ns;
    }
    return track;
  }
  size_t count() const { return ends_.size(); }

 private:
  std::vector<uint64_t> ends_;  // of the last transfer on each
};

class Writer {
 public:
  Writer(const Trace& trace, const TraceSource& source) : trace_(trace), source_(source) {}

  std::string Write() {
    Metadata("process_name", source_.pid, 0, absl::StrCat("tensorshelf ", source_.store));
    Metadata("process_name", devices_pid(), 0, absl::StrCat("devices of ", source_.store));
    std::vector<const TraceEvent*> in_order;
    for (const TraceEvent& event : trace_.events) in_order.push_back(&event);
    std::ranges::stable_sort(in_order, {}, &TraceEvent::begin_ns);
    for (const TraceEvent* event : in_order) {
      if (event->kind == TraceEvent::Kind::kOperation) {
        AddOperation(*event);
      } else {
        AddTransfer(*event);
      }
    }
    for (const auto& [device, tracks] : tracks_) {
      const std::string name = device < source_.devices.size() ? source_.devices[device] : "device";
      for (uint32_t track = 0; track < tracks.count(); ++track) {
        Metadata("thread_name", devices_pid(), device * kTracksPerDevice + track, absl::StrCat(name, " #", track));
      }
    }
    return absl::StrCat("{\"traceEvents\":[\n", events_,
                        "\n],\n\"displayTimeUnit\":\"ms\",\n\"otherData\":{\"store\":", Quoted(source_.store),
                        ",\"forgotten_events\":", trace_.forgotten_count,
                        ",\"duration_us\":", Microseconds(trace_.ended_ns - trace_.begun_ns), "}}\n");
  }

 private:
  uint32_t devices_pid() const { return source_.pid + 1; }

  void Add(const std::string& event) { absl::StrAppend(&events_, events_.empty() ? "" : ",\n", event); }

  void Metadata(const char* what, uint32_t pid, uint32_t tid, const std::string& name) {
    Add(absl::StrCat("{\"ph\":\"M\",\"name\":\"", what, "\",\"pid\":", pid, ",\"tid\":", tid,
                     ",\"args\":{\"name\":", Quoted(name), "}}"));
  }

  // What was under way when the trace began has begun at 0.
  std::string Span(const TraceEvent& event, const char* category, uint32_t pid, uint32_t tid) const {
    const uint64_t begin = std::max(event.begin_ns, trace_.begun_ns);
    const uint64_t end = std::max(event.end_ns, begin);
    return absl::StrCat("{\"ph\":\"X\",\"name\":", Quoted(event.name), ",\"cat\":\"", category, "\",\"pid\":", pid,
                        ",\"tid\":", tid, ",\"ts\":", Microseconds(begin - trace_.begun_ns),
                        ",\"dur\":", Microseconds(end - begin), ",\"args\":{\"bytes\":", event.bytes);
  }

  void AddOperation(const TraceEvent& event) {
    std::string text = Span(event, "operation", source_.pid, event.lane);
    absl::StrAppend(&text, ",\"items\":", event.items);
    if (event.subject[0] != '\0') absl::StrAppend(&text, ",\"first\":", Quoted(event.subject));
    Add(absl::StrCat(text, event.ok ? "" : ",\"failed\":true", "}}"));
  }

  void AddTransfer(const TraceEvent& event) {
    const uint32_t track = event.lane * kTracksPerDevice + tracks_[event.lane].Place(event);
    std::string text = Span(event, "transfer", devices_pid(), track);
    const std::string device = event.lane < source_.devices.size() ? source_.devices[event.lane] : "";
    absl::StrAppend(&text, ",\"queue_wait_us\":", Microseconds(event.wait_ns), ",\"offset\":", event.offset,
                    ",\"device\":", Quoted(device), ",\"file\":", Quoted(event.subject));
    Add(absl::StrCat(text, event.ok ? "" : ",\"failed\":true", "}}"));
  }

  const Trace& trace_;
  const TraceSource& source_;
  std::string events_;
  std::map<uint32_t, Tracks> tracks_;  // by device
};

}  // namespace

std::string ChromeTrace(const Trace& trace, const TraceSource& source) { return Writer(trace, source).Write(); }

}  // namespace tensorshelf
