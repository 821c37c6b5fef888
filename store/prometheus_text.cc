#include "store/prometheus_text.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "store/uuid.h"

namespace tensorshelf {
namespace {

using Label = std::pair<const char*, std::string>;

// Families one after another, each with its HELP and TYPE before its samples.
class Writer {
 public:
  explicit Writer(std::string store) : store_(std::move(store)) {}

  void Family(const std::string& name, const char* type, const char* help) {
    family_ = "tensorshelf_" + name;
    absl::StrAppend(&text_, "# HELP ", family_, " ", help, "\n# TYPE ", family_, " ", type, "\n");
  }
  void Sample(const std::vector<Label>& labels, uint64_t value) { Line("", labels, absl::StrCat(value)); }
  void Histogram(const std::vector<Label>& labels, const LatencyCounts& latency) {
    uint64_t below = 0;
    for (size_t i = 0; i + 1 < kLatencyBuckets; ++i) {
      below += latency.buckets[i];
      if (i % 2 != 0) continue;  // the halves between powers of two
      Line("_bucket", With(labels, {"le", Seconds(LatencyBucketEnd(i))}), absl::StrCat(below));
    }
    below += latency.buckets.back();
    Line("_bucket", With(labels, {"le", "+Inf"}), absl::StrCat(below));
    Line("_sum", labels, Seconds(latency.sum_ns));
    Line("_count", labels, absl::StrCat(below));
  }

  std::string Take() { return std::move(text_); }

 private:
  static std::string Seconds(uint64_t nanoseconds) {
    return absl::StrFormat("%.12g", static_cast<double>(nanoseconds) / 1e9);
  }
  static std::vector<Label> With(std::vector<Label> labels, Label more) {
    labels.push_back(std::move(more));
    return labels;
  }
  void Line(const char* suffix, const std::vector<Label>& labels, const std::string& value) {
    absl::StrAppend(&text_, family_, suffix, "{store=\"", store_, "\"");
    for (const auto& [name, content] : labels) {
      absl::StrAppend(&text_, ",", name, "=\"",
                      absl::StrReplaceAll(content, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}}), "\"");
    }
    absl::StrAppend(&text_, "} ", value, "\n");
  }

  const std::string store_;
  std::string family_;
  std::string text_;
};

void WriteOperations(const LivePage& page, Writer& out) {
  const auto each = [&](auto write) {
    for (size_t i = 0; i < kOperationCount; ++i)
      write(Label{"operation", NameOf(static_cast<Operation>(i))}, page.operations[i]);
  };
  out.Family("operation_seconds", "histogram",
             "Time that calls took which succeeded; of many short ones a sample, each for sixteen.");
  each([&](const Label& label, const LiveOperation& one) { out.Histogram({label}, one.latency); });
  out.Family("operation_calls_total", "counter", "Calls that succeeded, also those that stand behind a timed one.");
  each([&](const Label& label, const LiveOperation& one) { out.Sample({label}, one.calls); });
  out.Family("operation_items_total", "counter", "Objects of the calls; of commits transactions, of syncs files.");
  each([&](const Label& label, const LiveOperation& one) { out.Sample({label}, one.items); });
  out.Family("operation_bytes_total", "counter", "Bytes of tensors; of index writes, bytes of their batches.");
  each([&](const Label& label, const LiveOperation& one) { out.Sample({label}, one.bytes); });
  out.Family("operation_errors_total", "counter", "Calls that failed.");
  each([&](const Label& label, const LiveOperation& one) { out.Sample({label}, one.errors); });
}

struct DeviceField {
  const char* name;
  const char* type;
  const char* help;
  uint64_t LiveDevice::*field;
};
constexpr DeviceField kDeviceFields[] = {
    {"device_read_transfers_total", "counter", "Transfers submitted to the device.", &LiveDevice::read_ops},
    {"device_write_transfers_total", "counter", "Transfers submitted to the device.", &LiveDevice::write_ops},
    {"device_read_bytes_total", "counter", "Bytes read.", &LiveDevice::read_bytes},
    {"device_written_bytes_total", "counter", "Bytes written.", &LiveDevice::write_bytes},
    {"device_staged_bytes_total", "counter", "Bytes of both that were copied through the arena.",
     &LiveDevice::staged_bytes},
    {"device_resubmitted_transfers_total", "counter", "Transfers submitted again: short, or the device was busy.",
     &LiveDevice::resubmitted_ops},
    {"device_failed_transfers_total", "counter", "Transfers that failed.", &LiveDevice::failed_ops},
    {"device_in_flight_transfers", "gauge", "Transfers submitted and not back.", &LiveDevice::in_flight_ops},
    {"device_waiting_blocks", "gauge", "Transfers not submitted yet.", &LiveDevice::waiting_blocks},
    {"device_capacity_bytes", "gauge", "Room for tensors.", &LiveDevice::capacity},
    {"device_live_bytes", "gauge", "Space that objects take.", &LiveDevice::live},
    {"device_free_bytes", "gauge", "Space that nothing takes.", &LiveDevice::free}};

void WriteDevices(const LivePage& page, Writer& out) {
  const auto labels = [](const LiveDevice& device) {
    return std::vector<Label>{{"device", UuidText(device.uuid)}, {"tier", TextOf(device.tier)}};
  };
  for (const DeviceField& field : kDeviceFields) {
    out.Family(field.name, field.type, field.help);
    for (const LiveDevice& device : page.used_devices()) out.Sample(labels(device), device.*field.field);
  }
  out.Family("device_read_seconds", "histogram", "Time of a transfer, from submitting it to its completion.");
  for (const LiveDevice& device : page.used_devices()) out.Histogram(labels(device), device.read_latency);
  out.Family("device_write_seconds", "histogram", "Time of a transfer, from submitting it to its completion.");
  for (const LiveDevice& device : page.used_devices()) out.Histogram(labels(device), device.write_latency);
}

struct GaugeField {
  const char* name;
  const char* type;
  const char* help;
  uint64_t LiveGauges::*field;
};
constexpr GaugeField kGaugeFields[] = {
    {"commit_number", "gauge", "Number of the newest commit.", &LiveGauges::commit},
    {"names", "gauge", "Names in the store.", &LiveGauges::names},
    {"objects", "gauge", "Objects in the store.", &LiveGauges::objects},
    {"capacity_bytes", "gauge", "Room for tensors on all devices.", &LiveGauges::capacity},
    {"leased_objects", "gauge", "Objects that readers hold.", &LiveGauges::leased_objects},
    {"open_views", "gauge", "Views that hold back the reuse of space.", &LiveGauges::open_views},
    {"waiting_commits", "gauge", "Transactions that wait for the commit thread.", &LiveGauges::waiting_commits},
    {"commits_total", "counter", "Commits that changed the index.", &LiveGauges::commits},
    {"puts_total", "counter", "Values staged by puts.", &LiveGauges::puts},
    {"unchanged_puts_total", "counter", "Values that were stored already.", &LiveGauges::unchanged_puts},
    {"reread_blocks_total", "counter", "Blocks read again because their sums were wrong.", &LiveGauges::reread_blocks},
    {"corrupt_blocks_total", "counter", "Blocks whose sums stayed wrong.", &LiveGauges::corrupt_blocks},
    {"arena_buffers", "gauge", "Staging buffers.", &LiveGauges::arena_buffers},
    {"arena_free_buffers", "gauge", "Staging buffers that nobody uses.", &LiveGauges::arena_free_buffers},
    {"arena_waiting", "gauge", "Threads that wait for a staging buffer.", &LiveGauges::arena_waiting},
    {"arena_buffer_bytes", "gauge", "Size of a staging buffer.", &LiveGauges::arena_buffer_size},
    {"pool_held_bytes", "gauge", "Memory of results that users hold.", &LiveGauges::pool_held},
    {"pool_kept_bytes", "gauge", "Memory of results that is kept for reuse.", &LiveGauges::pool_kept},
    {"record_cache_hits_total", "counter", "Lookups that the record cache answered.", &LiveGauges::record_cache_hits},
    {"record_cache_misses_total", "counter", "Lookups that went to the index.", &LiveGauges::record_cache_misses},
    {"record_cache_bytes", "gauge", "Memory of the record cache.", &LiveGauges::record_cache_size},
    {"index_memory_bytes", "gauge", "Memory of RocksDB.", &LiveGauges::index_memory},
    {"index_bytes", "gauge", "Size of the index on disk.", &LiveGauges::index_size},
    {"memory_tier_capacity_bytes", "gauge", "Room for tensors in memory.", &LiveGauges::memory_capacity},
    {"memory_tier_bytes", "gauge", "Tensors in memory.", &LiveGauges::memory_size},
    {"memory_tier_leased_bytes", "gauge", "Tensors in memory that readers hold.", &LiveGauges::memory_leased},
    {"memory_tier_hits_total", "counter", "Reads from memory.", &LiveGauges::memory_hits},
    {"memory_tier_misses_total", "counter", "Reads that memory could not serve.", &LiveGauges::memory_misses}};

void WriteGauges(const LivePage& page, Writer& out) {
  for (const GaugeField& field : kGaugeFields) {
    const uint64_t value = page.gauges.*field.field;
    if (value == UINT64_MAX) continue;
    out.Family(field.name, field.type, field.help);
    out.Sample({}, value);
  }
  const LiveGauges& gauges = page.gauges;
  out.Family("space_bytes", "gauge", "Space by state; the states add up to the capacity.");
  const std::pair<const char*, uint64_t> states[] = {
      {"reserved", gauges.reserved}, {"live", gauges.live},   {"parked", gauges.parked}, {"free", gauges.free},
      {"scratch", gauges.scratch},   {"limbo", gauges.limbo}, {"bad", gauges.bad}};
  for (const auto& [state, bytes] : states) out.Sample({{"state", state}}, bytes);
}

}  // namespace

std::string PrometheusText(const LivePage& page) {
  Writer out(UuidText(page.header.store_uuid));
  WriteOperations(page, out);
  WriteDevices(page, out);
  WriteGauges(page, out);
  return out.Take();
}

}  // namespace tensorshelf
