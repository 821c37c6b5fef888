// Goal: watch shows a live writer's counters truly, in whatever width, and says plainly that there is none.
// Method: pages rendered from two readings of known numbers; the verb beside a store that this process writes to.

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "store/shelf_files.h"
#include "tests/tools/cli_fixture.h"
#include "tools/cli/watch_page.h"

namespace tensorshelf::cli {
namespace {

constexpr int64_t kSecond = 1'000'000'000;
constexpr int64_t kOpened = 1'800'000'000 * kSecond;

WatchReading ReadingAt(int64_t seconds) {
  WatchReading reading;
  reading.read_ns = kOpened + seconds * kSecond;
  reading.live.shelf = "/nvme/shelf";
  reading.live.writer = "pid=4711 host=here";
  LivePage& page = reading.live.page;
  InitialiseLivePage(page);
  page.header.opened_ns = kOpened;
  page.header.updated_ns = reading.read_ns;
  page.header.device_count = 1;
  SetText(page.header.program, "python3");
  SetText(page.devices[0].tier, "nvme");
  reading.live.store_file.devices = {{page.devices[0].uuid, "."}};
  page.gauges.names = 5;
  page.gauges.objects = 4;
  page.gauges.capacity = 100 << 20;
  page.gauges.live = 25 << 20;
  return reading;
}

void CountGets(WatchReading& reading, uint64_t calls, uint64_t each_ns, uint64_t bytes) {
  LiveOperation& get = reading.live.page.operations[static_cast<size_t>(Operation::kGet)];
  get.latency.buckets[LatencyBucket(each_ns)] += calls;
  get.latency.sum_ns += calls * each_ns;
  get.latency.max_ns = std::max(get.latency.max_ns, each_ns);
  get.calls += calls;
  get.items += calls;
  get.bytes += bytes;
}

std::string Render(const WatchPage& page, size_t columns = 0, bool colour = false) {
  std::ostringstream out, err;
  Console console{out, err};
  console.terminal = columns > 0;
  console.columns = columns;
  console.colour = colour;
  return RenderWatch(page, console);
}

std::string LineOf(const std::string& text, const std::string& begin) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind(begin, 0) == 0) return line;
  }
  return "";
}

TEST(WatchPage, RatesAreThoseOfTheTimeBetween) {
  WatchPage page{.now = ReadingAt(14), .before = ReadingAt(10)};
  CountGets(*page.before, 1000, 1'000'000, 1 << 20);
  CountGets(page.now, 1000, 1'000'000, 1 << 20);
  CountGets(page.now, 40, 2000, 8 << 20);
  EXPECT_DOUBLE_EQ(SecondsOf(page), 4);
  const Json json = WatchJson(page);
  const Json& get = json["operations"][1];
  EXPECT_EQ(get["operation"], "get");
  EXPECT_EQ(get["count"], 1040);
  EXPECT_EQ(get["calls_per_second"], 10.0);
  EXPECT_EQ(get["bytes_per_second"], 2.0 * (1 << 20));
  EXPECT_LE(get["latency_us"]["max"].get<double>(), 2.048) << "the slow ones were before";
  EXPECT_TRUE(json["operations"][0]["latency_us"].is_null());
  EXPECT_FALSE(json["since_open"].get<bool>());
  const std::string line = LineOf(Render(page), "get");
  EXPECT_NE(line.find("10.0"), std::string::npos) << line;
  EXPECT_NE(line.find("2.0 MiB/s"), std::string::npos) << line;
  EXPECT_NE(line.find("1040"), std::string::npos) << line;
}

TEST(WatchPage, TheFirstPageIsSinceTheOpening) {
  WatchPage page{.now = ReadingAt(50), .before = std::nullopt};
  CountGets(page.now, 100, 1000, 0);
  EXPECT_DOUBLE_EQ(SecondsOf(page), 50);
  EXPECT_EQ(WatchJson(page)["operations"][1]["calls_per_second"], 2.0);
  EXPECT_NE(Render(page).find("since the store was opened"), std::string::npos);
}

// A page is written when something has changed: that it is old does not mean that its numbers are.
TEST(WatchPage, AnIdleTimeBeforeDoesNotDiluteTheRate) {
  WatchPage page{.now = ReadingAt(3601), .before = ReadingAt(3600)};
  page.before->live.page.header.updated_ns = kOpened;
  CountGets(page.now, 100, 1000, 0);
  EXPECT_NEAR(SecondsOf(page), 1.25, 0.01) << "the time, and that between two looks of the writer";
  // Nothing at all for an hour.
  WatchPage idle{.now = ReadingAt(3601), .before = ReadingAt(3600)};
  idle.now.live.page.header.updated_ns = idle.before->live.page.header.updated_ns = kOpened;
  EXPECT_NEAR(SecondsOf(idle), 1, 0.01);
  EXPECT_EQ(WatchJson(idle)["operations"][1]["calls_per_second"], 0.0);
}

TEST(WatchPage, AClockThatWasSetDoesNotDivideByZero) {
  WatchPage page{.now = ReadingAt(11), .before = ReadingAt(10)};
  page.before->live.page.header.updated_ns = kOpened + 1000 * kSecond;
  CountGets(page.now, 100, 1000, 0);
  EXPECT_DOUBLE_EQ(SecondsOf(page), 1);
}

TEST(WatchPage, CountsThatFellAreNotNegative) {
  WatchPage page{.now = ReadingAt(11), .before = ReadingAt(10)};
  CountGets(*page.before, 100, 1000, 1 << 20);
  EXPECT_EQ(WatchJson(page)["operations"][1]["calls_per_second"], 0.0);
  EXPECT_EQ(WatchJson(page)["operations"][1]["bytes_per_second"], 0.0);
}

TEST(WatchPage, AnotherOpeningIsAnotherWriter) {
  const LivePage page = ReadingAt(10).live.page;
  LivePage other = page;
  other.gauges.commit = 7;
  EXPECT_TRUE(SameWriter(page, other));
  other.header.epoch = 7;
  EXPECT_FALSE(SameWriter(page, other));
}

TEST(WatchPage, FitsAnyWidth) {
  const WatchPage page{.now = ReadingAt(14), .before = ReadingAt(10)};
  for (const size_t columns : {1, 20, 40, 80, 200}) {
    std::istringstream lines(Render(page, columns));
    for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), columns) << line;
  }
  EXPECT_EQ(Render(page, 80).find('\x1b'), std::string::npos) << "no colours unless they are wanted";
  EXPECT_NE(Render(page, 80, true).find("\x1b[1m"), std::string::npos);
}

TEST(WatchPage, HostileTextsReachNoTerminal) {
  WatchPage page{.now = ReadingAt(14), .before = std::nullopt};
  SetText(page.now.live.page.header.program, "\x1b]0;x\x07");
  SetText(page.now.live.page.devices[0].tier, "\x1b[2J");
  page.now.live.writer = "a\nb\x1b[31m";
  page.now.live.page.header.device_count = kLiveDevicesMax;
  const std::string text = Render(page, 200);
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(text.find('\x07'), std::string::npos);
  EXPECT_NE(LineOf(text, "writer").find("a\\nb"), std::string::npos) << text;
}

// Whatever the numbers are, there is a page.
TEST(WatchPage, HostileNumbersAreShown) {
  WatchPage page{.now = ReadingAt(14), .before = ReadingAt(10)};
  for (WatchReading* reading : {&page.now, &*page.before}) {
    LivePage& live = reading->live.page;
    live.operations[1].bytes = live.gauges.free = live.gauges.capacity = live.gauges.arena_buffers = UINT64_MAX;
    live.gauges.live = live.gauges.arena_free_buffers = UINT64_MAX;
    live.operations[1].latency.buckets.fill(UINT64_MAX);
    live.devices[0].read_latency.buckets.fill(UINT64_MAX);
    live.header.opened_ns = live.header.updated_ns = INT64_MIN;
    live.header.operation_count = kLiveOperationsMax;
  }
  page.before->live.page.operations[1].latency.buckets.fill(7);
  EXPECT_NE(Render(page, 80).find("get"), std::string::npos);
  EXPECT_EQ(WatchJson(page)["verb"], "watch");
  page.before.reset();
  EXPECT_NE(Render(page, 80).find("get"), std::string::npos);
}

TEST(WatchPage, LatenciesAsText) {
  EXPECT_EQ(FormatLatency(0), "0 ns");
  EXPECT_EQ(FormatLatency(850), "850 ns");
  EXPECT_EQ(FormatLatency(12'340), "12.3 us");
  EXPECT_EQ(FormatLatency(999'960), "1.0 ms");
  EXPECT_EQ(FormatLatency(2.5e9), "2.5 s");
}

class CliWatch : public CliFixture {
 protected:
  // The writer shows its counts four times a second.
  void WaitUntilPutBytesAre(uint64_t bytes) {
    const absl::Time deadline = absl::Now() + absl::Seconds(30);
    while (absl::Now() < deadline) {
      const Outcome page = Call({"watch", shelf(), "--json", "--count", "1"});
      ASSERT_EQ(page.status, 0) << page.err;
      if (page.json()["operations"][0]["bytes"] == bytes) return;
    }
    FAIL() << "not shown in thirty seconds";
  }
};

TEST_F(CliWatch, NobodyWrites) {
  const Outcome outcome = Call({"watch", shelf()});
  EXPECT_EQ(outcome.status, 8);
  EXPECT_EQ(outcome.out, "");
  EXPECT_NE(outcome.err.find("nobody writes to"), std::string::npos) << outcome.err;
  const Outcome json = Call({"watch", shelf(), "--json"});
  EXPECT_EQ(json.status, 8);
  EXPECT_EQ(std::count(json.out.begin(), json.out.end(), '\n'), 1) << json.out;
  EXPECT_EQ(json.json()["error"]["code"], "FAILED_PRECONDITION");
  EXPECT_EQ(Call({"watch", path("nothing")}).status, 8);
}

TEST_F(CliWatch, WrongIntervals) {
  for (const char* interval : {"never", "0", "-1s", "1h30", "100h", "nan", ""}) {
    EXPECT_EQ(Call({"watch", shelf(), "--interval", interval}).status, 16) << interval;
  }
  EXPECT_EQ(Call({"watch", shelf(), "--count", "0"}).status, 16);
  EXPECT_EQ(Call({"watch", shelf(), "--interval", "0.5"}).status, 8) << "a plain number is of seconds";
}

TEST_F(CliWatch, BesideALiveWriter) {
  const std::unique_ptr<Store> store = OpenStore();
  PutBytes(*store, "a", RandomBytes(100'000, 1));
  WaitUntilPutBytesAre(100'000);
  const Outcome json = Call({"watch", shelf(), "--json", "--interval", "10ms", "--count", "3"});
  ASSERT_EQ(json.status, 0) << json.err;
  std::istringstream lines(json.out);
  std::vector<nlohmann::json> pages;
  for (std::string line; std::getline(lines, line);) pages.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(pages.size(), 3u);
  EXPECT_EQ(pages[0]["pid"], getpid());
  EXPECT_EQ(pages[0]["names"], 1);
  EXPECT_EQ(pages[0]["commit"], store->info().commit);
  EXPECT_EQ(pages[0]["writer"], store->info().writer);
  EXPECT_EQ(pages[0]["devices"][0]["directory"], shelf());
  EXPECT_EQ(pages[0]["operations"][0]["operation"], "put");
  EXPECT_EQ(pages[0]["operations"][0]["count"], 1);
  EXPECT_GT(pages[0]["operations"][0]["latency_us"]["p99"].get<double>(), 0);
  EXPECT_TRUE(pages[0]["since_open"].get<bool>());
  EXPECT_FALSE(pages[2]["since_open"].get<bool>());
  EXPECT_TRUE(pages[2]["operations"][0]["latency_us"].is_null()) << "none of late";
  const Outcome text = Call({"watch", shelf(), "--count", "2", "--interval", "10ms"});
  EXPECT_EQ(text.status, 0) << text.err;
  EXPECT_EQ(text.out.find('\x1b'), std::string::npos) << "not a terminal";
  EXPECT_NE(text.out.find("\n\n" + shelf()), std::string::npos) << "one page after the other: " << text.out;
}

TEST_F(CliWatch, OnATerminalPagesAreDrawnInPlace) {
  const std::unique_ptr<Store> store = OpenStore();
  std::ostringstream out, err;
  Console console{out, err};
  console.terminal = true;
  console.columns = 60;
  const std::vector<std::string> arguments = {"tensorshelf", "watch", shelf(), "--count", "2", "--interval", "10ms"};
  std::vector<const char*> argv;
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  ASSERT_EQ(cli::Run(static_cast<int>(argv.size()), argv.data(), console), 0) << err.str();
  const std::string text = out.str();
  EXPECT_EQ(text.rfind("\x1b[2J\x1b[H", 0), 0u);
  EXPECT_EQ(text.find("\x1b[2J", 1), std::string::npos) << "the second page does not clear the screen first";
  EXPECT_NE(text.rfind("\x1b[H"), text.find("\x1b[H"));
  EXPECT_NE(text.find("\x1b[K\n"), std::string::npos);
}

TEST_F(CliWatch, WritesNothing) {
  const auto store = Store::Open(shelf(), {.page_locked = false, .background_fill = false}).value();
  PutBytes(*store, "a", RandomBytes(100'000, 1));
  // The counters are the writer's to change.
  const auto others = [&] {
    auto entries = Fingerprint(shelf_);
    entries.erase((shelf_ / kCountersName).string());
    return entries;
  };
  ASSERT_OK(store->Flush());
  const auto before = others();
  EXPECT_EQ(Call({"watch", shelf(), "--count", "3", "--interval", "10ms"}).status, 0);
  EXPECT_EQ(Call({"watch", shelf(), "--count", "2", "--interval", "10ms", "--json"}).status, 0);
  EXPECT_EQ(others(), before);
}

// Its page stays behind; nothing that looks at the shelf minds it, and the next writer removes it.
TEST_F(CliWatch, WhatAKilledWriterLeaves) {
  std::string left;
  {
    const std::unique_ptr<Store> store = OpenStore();
    left = ReadAll(shelf_ / kCountersName);
  }
  WriteAll(shelf_ / kCountersName, left);
  const Outcome outcome = Call({"watch", shelf()});
  EXPECT_EQ(outcome.status, 8);
  EXPECT_NE(outcome.err.find("did not close it"), std::string::npos) << outcome.err;
  const Outcome fsck = Call({"fsck", shelf(), "--json"});
  EXPECT_EQ(fsck.status, 0) << fsck.out;
  EXPECT_EQ(fsck.json()["findings"].size(), 0u) << fsck.out;
  EXPECT_EQ(Call({"info", shelf(), "--json"}).json()["orphan_files"].size(), 0u);
  EXPECT_EQ(Call({"relocate", shelf(), "--dry-run"}).status, 0);
  OpenStore();
  EXPECT_FALSE(fs::exists(shelf_ / kCountersName));
}

}  // namespace
}  // namespace tensorshelf::cli
