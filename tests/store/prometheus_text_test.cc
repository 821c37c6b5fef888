// Goal: the page is what Prometheus takes: the text format 0.0.4, families whole, histograms that add up.
// Method: a strict parser of that format reads pages of known numbers; each sample is looked up by name and labels.

#include "store/prometheus_text.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tensorshelf {
namespace {

struct Metrics {
  std::map<std::string, std::string> types;  // of families
  std::map<std::string, double> samples;     // "name{a="b",c="d"}" without the label store
};

// A value as Go's ParseFloat takes it: more than enough here.
double Number(const std::string& text) {
  if (text == "+Inf") return INFINITY;
  double value = NAN;
  EXPECT_TRUE(absl::SimpleAtod(text, &value)) << text;
  return value;
}

// The family of a sample: histograms have three kinds of names.
std::string FamilyOf(const std::string& name, const Metrics& metrics) {
  for (const char* suffix : {"_bucket", "_sum", "_count"}) {
    const std::string end = suffix;
    if (name.size() <= end.size() || name.substr(name.size() - end.size()) != end) continue;
    const std::string family = name.substr(0, name.size() - end.size());
    const auto type = metrics.types.find(family);
    if (type != metrics.types.end() && type->second == "histogram") return family;
  }
  return name;
}

Metrics Parse(const std::string& text) {
  static const std::regex kComment("# (HELP|TYPE) ([a-z_][a-z0-9_]*) (.+)");
  static const std::regex kSample("([a-z_][a-z0-9_]*)\\{([^}]*)\\} ([^ ]+)");
  static const std::regex kLabel("([a-z_]+)=\"((?:[^\"\\\\\n]|\\\\[\\\\\"n])*)\"(,|$)");
  Metrics metrics;
  std::string open_family, last_help;
  std::set<std::string> closed;
  EXPECT_EQ(text.back(), '\n');
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, kComment)) {
      if (match[1] == "HELP") {
        last_help = match[2];
        continue;
      }
      EXPECT_EQ(match[2], last_help) << "a TYPE without its HELP: " << line;
      EXPECT_TRUE(metrics.types.emplace(match[2], match[3]).second) << "twice: " << line;
      if (!open_family.empty()) closed.insert(open_family);
      open_family = match[2];
      continue;
    }
    if (!std::regex_match(line, match, kSample)) {
      ADD_FAILURE() << "not a line of the format: " << line;
      continue;
    }
    EXPECT_EQ(FamilyOf(match[1], metrics), open_family) << "outside of its family: " << line;
    const std::string labels = match[2];
    std::string kept;
    size_t used = 0;
    for (std::sregex_iterator label(labels.begin(), labels.end(), kLabel), end; label != end; ++label) {
      used += static_cast<size_t>(label->length());
      if ((*label)[1] == "store") continue;
      absl::StrAppend(&kept, kept.empty() ? "" : ",", (*label)[1].str(), "=\"", (*label)[2].str(), "\"");
    }
    EXPECT_EQ(used, labels.size()) << "labels: " << line;
    EXPECT_NE(labels.find("store=\"07000000-0000-0000-0000-000000000000\""), std::string::npos) << line;
    const std::string key = absl::StrCat(match[1].str(), "{", kept, "}");
    EXPECT_TRUE(metrics.samples.emplace(key, Number(match[3])).second) << "twice: " << line;
  }
  return metrics;
}

LivePage Page() {
  LivePage page;
  InitialiseLivePage(page);
  page.header.store_uuid[0] = 7;
  return page;
}

TEST(PrometheusText, AnEmptyPageIsWellFormed) {
  const Metrics metrics = Parse(PrometheusText(Page()));
  EXPECT_EQ(metrics.types.at("tensorshelf_operation_seconds"), "histogram");
  EXPECT_EQ(metrics.types.at("tensorshelf_operation_bytes_total"), "counter");
  EXPECT_EQ(metrics.types.at("tensorshelf_names"), "gauge");
  for (const auto& [name, type] : metrics.types) {
    EXPECT_EQ(name.substr(0, 12), "tensorshelf_");
    EXPECT_EQ(type == "counter", name.size() > 6 && name.substr(name.size() - 6) == "_total") << name;
  }
}

TEST(PrometheusText, HistogramsAddUp) {
  LivePage page = Page();
  LatencyCounts& latency = page.operations[static_cast<size_t>(Operation::kGet)].latency;
  for (const uint64_t ns : {100, 300, 400, 1000, 2000}) {
    ++latency.buckets[LatencyBucket(ns)];
    latency.sum_ns += ns;
  }
  ++latency.buckets.back();
  const Metrics metrics = Parse(PrometheusText(page));
  const auto at = [&](const std::string& rest) { return metrics.samples.at("tensorshelf_operation_seconds" + rest); };
  EXPECT_EQ(at("_bucket{operation=\"get\",le=\"2.56e-07\"}"), 1);
  EXPECT_EQ(at("_bucket{operation=\"get\",le=\"5.12e-07\"}"), 3);
  EXPECT_EQ(at("_bucket{operation=\"get\",le=\"1.024e-06\"}"), 4);
  EXPECT_EQ(at("_bucket{operation=\"get\",le=\"2.048e-06\"}"), 5);
  EXPECT_EQ(at("_bucket{operation=\"get\",le=\"549.755813888\"}"), 5);
  EXPECT_EQ(at("_bucket{operation=\"get\",le=\"+Inf\"}"), 6);
  EXPECT_EQ(at("_count{operation=\"get\"}"), 6);
  EXPECT_DOUBLE_EQ(at("_sum{operation=\"get\"}"), 3.8e-6);
  EXPECT_EQ(at("_count{operation=\"put\"}"), 0);
}

TEST(PrometheusText, BoundsRise) {
  const std::string text = PrometheusText(Page());
  double last = 0;
  size_t count = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    const size_t le = line.find("operation=\"put\",le=\"");
    if (le == std::string::npos) continue;
    const size_t begin = le + 20;
    const double bound = Number(line.substr(begin, line.find('"', begin) - begin));
    EXPECT_GT(bound, last);
    last = bound;
    ++count;
  }
  EXPECT_EQ(count, 33u);
  EXPECT_EQ(last, INFINITY);
}

TEST(PrometheusText, DevicesAndGauges) {
  LivePage page = Page();
  page.header.device_count = 2;
  page.devices[0].uuid[15] = 1;
  page.devices[1].uuid[15] = 2;
  SetText(page.devices[0].tier, "a \"b\"\\\n");
  page.devices[0].read_bytes = 10;
  page.devices[1].read_bytes = 20;
  page.devices[2].read_bytes = 30;  // beyond device_count
  page.gauges.objects = 3;
  page.gauges.names = UINT64_MAX;
  page.gauges.parked = 4096;
  const Metrics metrics = Parse(PrometheusText(page));
  const std::string uuid = "00000000-0000-0000-0000-00000000000";
  EXPECT_EQ(
      metrics.samples.at("tensorshelf_device_read_bytes_total{device=\"" + uuid + "1\",tier=\"a \\\"b\\\"\\\\\\n\"}"),
      10);
  EXPECT_EQ(metrics.samples.at("tensorshelf_device_read_bytes_total{device=\"" + uuid + "2\",tier=\"\"}"), 20);
  EXPECT_EQ(metrics.samples.at("tensorshelf_objects{}"), 3);
  EXPECT_FALSE(metrics.samples.contains("tensorshelf_names{}")) << "not counted";
  EXPECT_EQ(metrics.samples.at("tensorshelf_space_bytes{state=\"parked\"}"), 4096);
}

}  // namespace
}  // namespace tensorshelf
