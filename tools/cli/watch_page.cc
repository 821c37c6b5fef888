#include "tools/cli/watch_page.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "store/name.h"
#include "store/shelf_files.h"
#include "store/uuid.h"
#include "tools/cli/text.h"

namespace tensorshelf::cli {
namespace {

constexpr size_t kBarWidth = 20;

uint64_t Grown(uint64_t now, uint64_t before) { return now - std::min(now, before); }

// What an operation, or one kind of transfer of a device, did in the time of a page.
struct Activity {
  uint64_t calls = 0, bytes = 0;
  LatencyCounts latency;
};

Activity ActivityOf(const LiveOperation& now, const LiveOperation* before) {
  if (before == nullptr) return {now.calls, now.bytes, now.latency};
  return {Grown(now.calls, before->calls), Grown(now.bytes, before->bytes), now.latency.Since(before->latency)};
}

Activity ReadsOf(const LiveDevice& now, const LiveDevice* before) {
  if (before == nullptr) return {now.read_latency.count(), now.read_bytes, now.read_latency};
  const LatencyCounts latency = now.read_latency.Since(before->read_latency);
  return {latency.count(), Grown(now.read_bytes, before->read_bytes), latency};
}

Activity WritesOf(const LiveDevice& now, const LiveDevice* before) {
  if (before == nullptr) return {now.write_latency.count(), now.write_bytes, now.write_latency};
  const LatencyCounts latency = now.write_latency.Since(before->write_latency);
  return {latency.count(), Grown(now.write_bytes, before->write_bytes), latency};
}

const LiveDevice* Find(const std::optional<WatchReading>& reading, const Uuid& uuid) {
  if (!reading) return nullptr;
  const auto devices = reading->live.page.used_devices();
  const auto found = std::ranges::find(devices, uuid, &LiveDevice::uuid);
  return found == devices.end() ? nullptr : &*found;
}

const LiveOperation* OperationBefore(const WatchPage& page, size_t i) {
  return page.before ? &page.before->live.page.operations[i] : nullptr;
}

std::string DirectoryOf(const WatchPage& page, const LiveDevice& device) {
  for (const StoreFile::Device& known : page.now.live.store_file.devices) {
    if (known.uuid == device.uuid) return ResolveHint(page.now.live.shelf, known.path_hint);
  }
  return "";
}

std::string Rate(uint64_t count, double seconds) {
  const double rate = static_cast<double>(count) / seconds;
  return rate < 100 ? absl::StrFormat("%.1f", rate) : absl::StrFormat("%.0f", rate);
}

std::string ByteRate(uint64_t bytes, double seconds) {
  // Below 2^63, whatever the page says.
  const double rate = std::min(static_cast<double>(bytes) / seconds, 9e18);
  return absl::StrCat(FormatBytes(static_cast<uint64_t>(rate)), "/s");
}

std::string Share(uint64_t hits, uint64_t misses) {
  if (hits + misses == 0) return "-";
  return absl::StrFormat("%.1f %%", 100.0 * static_cast<double>(hits) / static_cast<double>(hits + misses));
}

std::string LatencyOr(const LatencyCounts& latency, double quantile) {
  return latency.count() == 0 ? "-" : FormatLatency(latency.QuantileNs(quantile));
}

// Lines that are cut to the terminal before they get colours.
class Lines {
 public:
  explicit Lines(const Console& console) : console_(console) {}

  void Add(const std::string& line) { Put(Cut(line)); }
  void Add(Colour colour, const std::string& line) { Put(Painted(console_, colour, Cut(line))); }
  std::string Take() { return std::move(text_); }

 private:
  void Put(const std::string& line) { absl::StrAppend(&text_, line, "\n"); }

  // By characters: none that takes two columns is made here, and names are rare.
  std::string Cut(const std::string& line) const {
    if (!console_.terminal) return line;
    size_t columns = 0;
    for (size_t i = 0; i < line.size(); ++i) {
      const bool begins = (static_cast<unsigned char>(line[i]) & 0xc0) != 0x80;
      if (begins && columns++ == console_.columns) return line.substr(0, i);
    }
    return line;
  }

  const Console& console_;
  std::string text_;
};

std::string Bar(uint64_t part, uint64_t whole) {
  const double share = whole == 0 ? 0 : std::clamp(static_cast<double>(part) / static_cast<double>(whole), 0.0, 1.0);
  const auto filled = static_cast<size_t>(std::lround(share * kBarWidth));
  return absl::StrCat("[", std::string(filled, '#'), std::string(kBarWidth - filled, '.'), "]");
}

void AddHeader(const WatchPage& page, Lines& lines) {
  const LivePage& live = page.now.live.page;
  const LiveHeader& header = live.header;
  lines.Add(Colour::kBold, absl::StrCat(EscapeForTerminal(page.now.live.shelf), "  commit ", live.gauges.commit, "  ",
                                        EscapeForTerminal(TextOf(header.program)), ", open for ",
                                        FormatDuration(OpenSecondsOf(page.now))));
  lines.Add(absl::StrCat("writer   ", EscapeForTerminal(page.now.live.writer)));
}

void AddGauges(const WatchPage& page, Lines& lines) {
  const LiveGauges& gauges = page.now.live.page.gauges;
  lines.Add(absl::StrCat("space    ", Bar(gauges.live, gauges.capacity), " ", FormatBytes(gauges.live), " live, ",
                         FormatBytes(gauges.parked), " parked, ", FormatBytes(gauges.free), " free of ",
                         FormatBytes(gauges.capacity)));
  if (gauges.names != UINT64_MAX) {
    lines.Add(absl::StrCat("names    ", FormatCount(gauges.names, "name"), ", ", FormatCount(gauges.objects, "object"),
                           ", ", gauges.leased_objects, " leased, ", FormatCount(gauges.open_views, "view"), ", ",
                           gauges.waiting_commits, gauges.waiting_commits == 1 ? " commit waits" : " commits wait"));
  }
  if (gauges.memory_capacity > 0) {
    lines.Add(absl::StrCat("tier     ", Bar(gauges.memory_size, gauges.memory_capacity), " ",
                           FormatBytes(gauges.memory_size), " in memory of ", FormatBytes(gauges.memory_capacity), ", ",
                           FormatBytes(gauges.memory_leased), " leased, hits ",
                           Share(gauges.memory_hits, gauges.memory_misses)));
  }
  lines.Add(absl::StrCat("memory   staging ", Grown(gauges.arena_buffers, gauges.arena_free_buffers), " of ",
                         FormatCount(gauges.arena_buffers, "buffer"), " used, ", gauges.arena_waiting,
                         " wait; results ", FormatBytes(gauges.pool_held), " held, ", FormatBytes(gauges.pool_kept),
                         " kept"));
  lines.Add(absl::StrCat("index    ", FormatBytes(gauges.index_size), ", in memory ", FormatBytes(gauges.index_memory),
                         "; records ", FormatBytes(gauges.record_cache_size), ", hits ",
                         Share(gauges.record_cache_hits, gauges.record_cache_misses)));
  if (gauges.corrupt_blocks > 0) {
    lines.Add(Colour::kRed, absl::StrCat("damage   ", FormatCount(gauges.corrupt_blocks, "corrupt block"), " read"));
  }
}

void AddOperations(const WatchPage& page, Lines& lines) {
  const double seconds = SecondsOf(page);
  lines.Add("");
  lines.Add(Colour::kBold, absl::StrFormat("%-12s %9s %13s %9s %9s %9s %11s %7s", "operation", "calls/s", "bytes/s",
                                           "p50", "p99", "max", "calls", "errors"));
  const size_t count = std::min<size_t>(page.now.live.page.header.operation_count, kOperationCount);
  for (size_t i = 0; i < count; ++i) {
    const LiveOperation& now = page.now.live.page.operations[i];
    const Activity activity = ActivityOf(now, OperationBefore(page, i));
    const std::string line = absl::StrFormat("%-12s %9s %13s %9s %9s %9s %11d %7d", NameOf(static_cast<Operation>(i)),
                                             Rate(activity.calls, seconds), ByteRate(activity.bytes, seconds),
                                             LatencyOr(activity.latency, 0.5), LatencyOr(activity.latency, 0.99),
                                             LatencyOr(activity.latency, 1), now.calls, now.errors);
    activity.calls > 0 ? lines.Add(line) : lines.Add(Colour::kDim, line);
  }
}

void AddDevices(const WatchPage& page, Lines& lines) {
  const double seconds = SecondsOf(page);
  lines.Add("");
  lines.Add(Colour::kBold, absl::StrFormat("%-12s %9s %13s %9s %9s %9s %11s %7s", "device", "I/Os/s", "bytes/s", "p50",
                                           "p99", "max", "queue", "failed"));
  for (const LiveDevice& device : page.now.live.page.used_devices()) {
    const std::string tier = TextOf(device.tier);
    lines.Add(absl::StrCat(EscapeForTerminal(tier.empty() ? "device" : tier), "  ",
                           EscapeForTerminal(DirectoryOf(page, device)), "  ", FormatBytes(device.live), " live, ",
                           FormatBytes(device.free), " free"));
    const LiveDevice* before = Find(page.before, device.uuid);
    const auto add = [&](const char* what, const Activity& activity, const std::string& queue,
                         const std::string& failed) {
      lines.Add(absl::StrFormat("  %-10s %9s %13s %9s %9s %9s %11s %7s", what, Rate(activity.calls, seconds),
                                ByteRate(activity.bytes, seconds), LatencyOr(activity.latency, 0.5),
                                LatencyOr(activity.latency, 0.99), LatencyOr(activity.latency, 1), queue, failed));
    };
    add("read", ReadsOf(device, before), absl::StrCat(device.in_flight_ops, "+", device.waiting_blocks),
        absl::StrCat(device.failed_ops));
    add("write", WritesOf(device, before), "", "");
  }
  if (page.now.live.page.header.devices_left_out > 0) {
    lines.Add(absl::StrCat("and ", FormatCount(page.now.live.page.header.devices_left_out, "device"), " more"));
  }
}

Json LatencyJson(const LatencyCounts& latency) {
  if (latency.count() == 0) return nullptr;
  return {{"p50", latency.QuantileNs(0.5) / 1e3},
          {"p99", latency.QuantileNs(0.99) / 1e3},
          {"max", static_cast<double>(latency.max_ns) / 1e3},
          {"mean", latency.mean_ns() / 1e3}};
}

Json ActivityJson(const Activity& activity, double seconds) {
  return {{"calls_per_second", static_cast<double>(activity.calls) / seconds},
          {"bytes_per_second", static_cast<double>(activity.bytes) / seconds},
          {"latency_us", LatencyJson(activity.latency)}};
}

Json CountOrNull(uint64_t count) { return count == UINT64_MAX ? Json(nullptr) : Json(count); }

Json DevicesJson(const WatchPage& page, double seconds) {
  Json devices = Json::array();
  for (const LiveDevice& device : page.now.live.page.used_devices()) {
    const LiveDevice* before = Find(page.before, device.uuid);
    devices.push_back({{"device", UuidText(device.uuid)},
                       {"tier", TextOf(device.tier)},
                       {"directory", DirectoryOf(page, device)},
                       {"capacity", device.capacity},
                       {"live", device.live},
                       {"free", device.free},
                       {"read_transfers", device.read_ops},
                       {"write_transfers", device.write_ops},
                       {"read_bytes", device.read_bytes},
                       {"written_bytes", device.write_bytes},
                       {"staged_bytes", device.staged_bytes},
                       {"resubmitted_transfers", device.resubmitted_ops},
                       {"failed_transfers", device.failed_ops},
                       {"in_flight_transfers", device.in_flight_ops},
                       {"waiting_blocks", device.waiting_blocks},
                       {"reads", ActivityJson(ReadsOf(device, before), seconds)},
                       {"writes", ActivityJson(WritesOf(device, before), seconds)}});
  }
  return devices;
}

}  // namespace

std::string FormatLatency(double nanoseconds) {
  static constexpr const char* kUnits[] = {"ns", "us", "ms", "s"};
  size_t unit = 0;
  // 999.95 and more would be shown as 1000.0.
  while (nanoseconds >= 999.95 && unit + 1 < std::size(kUnits)) {
    nanoseconds /= 1000;
    ++unit;
  }
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.1f %s", nanoseconds, kUnits[unit]);
}

bool SameWriter(const LivePage& a, const LivePage& b) {
  return a.header.store_uuid == b.header.store_uuid && a.header.epoch == b.header.epoch &&
         a.header.opened_ns == b.header.opened_ns && a.header.holder == b.header.holder;
}

double SecondsOf(const WatchPage& page) {
  // Counts are those of the moment when the page was written; where that is long ago, nothing has changed since then
  // but in the time between two looks of the writer. In doubles, which no number in a page can overflow.
  const auto counted_at = [](const WatchReading& reading) {
    const auto looked = static_cast<double>(reading.read_ns - absl::ToInt64Nanoseconds(kLiveEvery));
    return std::max(static_cast<double>(reading.live.page.header.updated_ns), looked);
  };
  double nanoseconds = counted_at(page.now);
  nanoseconds -= page.before ? counted_at(*page.before) : static_cast<double>(page.now.live.page.header.opened_ns);
  // A clock that was set, or the clock of another machine.
  if (page.before && nanoseconds <= 0) nanoseconds = static_cast<double>(page.now.read_ns - page.before->read_ns);
  return std::max(1e-3, nanoseconds / 1e9);
}

double OpenSecondsOf(const WatchReading& reading) {
  return (static_cast<double>(reading.read_ns) - static_cast<double>(reading.live.page.header.opened_ns)) / 1e9;
}

std::string RenderWatch(const WatchPage& page, const Console& console) {
  Lines lines(console);
  AddHeader(page, lines);
  AddGauges(page, lines);
  AddOperations(page, lines);
  AddDevices(page, lines);
  lines.Add(Colour::kDim, page.before ? absl::StrFormat("rates and latencies of the last %.1f s", SecondsOf(page))
                                      : "rates and latencies since the store was opened");
  return lines.Take();
}

Json WatchJson(const WatchPage& page) {
  const LivePage& live = page.now.live.page;
  const LiveHeader& header = live.header;
  const LiveGauges& gauges = live.gauges;
  const double seconds = SecondsOf(page);
  Json json = Envelope("watch", {.path = page.now.live.shelf,
                                 .store_uuid = header.store_uuid,
                                 .epoch = header.epoch,
                                 .commit = gauges.commit,
                                 .mode = "beside-writer",
                                 .writer = page.now.live.writer,
                                 .files = {},
                                 .orphan_files = {}});
  json.update({{"pid", header.pid},
               {"process_start_ticks", header.process_start_ticks},
               {"program", TextOf(header.program)},
               {"opened", FormatTime(header.opened_ns)},
               {"updated", FormatTime(header.updated_ns)},
               {"open_seconds", OpenSecondsOf(page.now)},
               {"sequence", header.sequence},
               {"since_open", !page.before.has_value()},
               {"seconds", seconds}});
  Json operations = Json::array();
  const size_t count = std::min<size_t>(header.operation_count, kOperationCount);
  for (size_t i = 0; i < count; ++i) {
    const LiveOperation& now = live.operations[i];
    Json one = {{"operation", NameOf(static_cast<Operation>(i))},
                {"count", now.calls},
                {"items", now.items},
                {"bytes", now.bytes},
                {"errors", now.errors}};
    one.update(ActivityJson(ActivityOf(now, OperationBefore(page, i)), seconds));
    operations.push_back(std::move(one));
  }
  json["operations"] = std::move(operations);
  json["devices"] = DevicesJson(page, seconds);
  json["devices_left_out"] = header.devices_left_out;
  json["space"] = SpaceJson({.capacity = gauges.capacity,
                             .reserved = gauges.reserved,
                             .live = gauges.live,
                             .parked = gauges.parked,
                             .free = gauges.free,
                             .scratch = gauges.scratch,
                             .limbo = gauges.limbo,
                             .bad = gauges.bad});
  json.update({{"names", CountOrNull(gauges.names)},
               {"objects", CountOrNull(gauges.objects)},
               {"leased_objects", gauges.leased_objects},
               {"open_views", gauges.open_views},
               {"waiting_commits", gauges.waiting_commits},
               {"unchanged_puts", gauges.unchanged_puts},
               {"reread_blocks", gauges.reread_blocks},
               {"corrupt_blocks", gauges.corrupt_blocks}});
  json["staging"] = {{"buffers", gauges.arena_buffers},
                     {"free_buffers", gauges.arena_free_buffers},
                     {"waiting", gauges.arena_waiting},
                     {"buffer_size", gauges.arena_buffer_size}};
  json["results"] = {{"held", gauges.pool_held}, {"kept", gauges.pool_kept}};
  json["index"] = {{"size", gauges.index_size},
                   {"memory", gauges.index_memory},
                   {"record_cache_size", gauges.record_cache_size},
                   {"record_cache_hits", gauges.record_cache_hits},
                   {"record_cache_misses", gauges.record_cache_misses}};
  json["memory_tier"] = gauges.memory_capacity == 0 ? Json(nullptr)
                                                    : Json{{"capacity", gauges.memory_capacity},
                                                           {"size", gauges.memory_size},
                                                           {"leased", gauges.memory_leased},
                                                           {"hits", gauges.memory_hits},
                                                           {"misses", gauges.memory_misses}};
  return json;
}

}  // namespace tensorshelf::cli
