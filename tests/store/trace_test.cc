// Traces: the bounded log by itself, the text by itself, and what a store writes into one. Text is checked by its
// parts; that it is JSON which a parser takes is tested from Python.

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "engine/foundation/trace_log.h"
#include "store/trace_text.h"
#include "tests/store/store_fixture.h"

namespace tensorshelf {
namespace {

TEST(TraceLogTest, RecordsNothingUntilItIsTold) {
  TraceLog log;
  log.Add({.name = "get"});
  EXPECT_FALSE(log.on());
  ASSERT_TRUE(log.Start(10));
  EXPECT_TRUE(log.on());
  EXPECT_FALSE(log.Start(10));
  log.Add({.name = "put"});
  const Trace trace = log.Stop();
  ASSERT_EQ(trace.events.size(), 1u);
  EXPECT_STREQ(trace.events[0].name, "put");
  EXPECT_LE(trace.begun_ns, trace.ended_ns);
  log.Add({.name = "get"});
  ASSERT_TRUE(log.Start(10));
  EXPECT_EQ(log.Stop().events.size(), 0u);
}

TEST(TraceLogTest, ForgetsTheOldestFirst) {
  for (const uint64_t count : {3, 4, 5, 8, 11}) {
    TraceLog log;
    ASSERT_TRUE(log.Start(4));
    for (uint64_t i = 0; i < count; ++i) log.Add({.bytes = i});
    const Trace trace = log.Stop();
    ASSERT_EQ(trace.events.size(), std::min<uint64_t>(count, 4));
    EXPECT_EQ(trace.forgotten_count, count - trace.events.size());
    for (size_t i = 0; i < trace.events.size(); ++i) EXPECT_EQ(trace.events[i].bytes, trace.forgotten_count + i);
  }
}

TEST(TraceLogTest, TakesEventsOfManyThreads) {
  TraceLog log;
  ASSERT_TRUE(log.Start(1000));
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 500; ++j) log.Add({.lane = TraceLog::ThreadLane()});
    });
  }
  for (std::thread& thread : threads) thread.join();
  const Trace trace = log.Stop();
  EXPECT_EQ(trace.events.size(), 1000u);
  EXPECT_EQ(trace.forgotten_count, 1000u);
}

TEST(TraceLogTest, ASubjectIsTheEndOfALongText) {
  TraceEvent event;
  event.set_subject(std::string(100, 'a') + "/weight");
  EXPECT_EQ(std::string(event.subject), std::string(32, 'a') + "/weight");
  std::string umlauts;
  for (int i = 0; i < 30; ++i) umlauts += "ö";
  event.set_subject(umlauts);  // 39 bytes would begin in the middle of one
  EXPECT_EQ(std::string(event.subject), umlauts.substr(0, 38));
  event.set_subject("b");
  EXPECT_STREQ(event.subject, "b");
}

TEST(TraceTextTest, TransfersAtTheSameTimeHaveTracksOfTheirOwn) {
  using Kind = TraceEvent::Kind;
  Trace trace{.begun_ns = 1000, .ended_ns = 10000};
  trace.events = {
      {.name = "read", .kind = Kind::kTransfer, .begin_ns = 2000, .end_ns = 4000, .wait_ns = 1500, .bytes = 7},
      {.name = "read", .kind = Kind::kTransfer, .begin_ns = 3000, .end_ns = 5000},
      {.name = "read", .kind = Kind::kTransfer, .begin_ns = 4000, .end_ns = 6000},
      {.name = "get", .ok = false, .lane = 77, .begin_ns = 500, .end_ns = 9000, .items = 2, .bytes = 30},
  };
  trace.events[3].set_subject("a\"\\\n");
  const std::string text = ChromeTrace(trace, {.store = "/s", .pid = 5, .devices = {"nvme X"}});
  const auto has = [&](const std::string& part) { return text.find(part) != std::string::npos; };
  EXPECT_TRUE(has(R"("ph":"X","name":"read","cat":"transfer","pid":6,"tid":0,"ts":1.000,"dur":2.000,"args":{"bytes":7,)"
                  R"("queue_wait_us":1.500)"))
      << text;
  EXPECT_TRUE(has(R"("pid":6,"tid":1,"ts":2.000)")) << text;
  EXPECT_TRUE(has(R"("pid":6,"tid":0,"ts":3.000)")) << text;
  EXPECT_TRUE(has(R"({"name":"nvme X #1"})")) << text;
  EXPECT_FALSE(has("#2")) << text;
  // It was under way when the trace began.
  EXPECT_TRUE(has(R"("name":"get","cat":"operation","pid":5,"tid":77,"ts":0.000,"dur":8.000,"args":{"bytes":30,)"
                  R"("items":2,"first":"a\\\"\\\\\\n","failed":true}})"))
      << text;
}

using StoreTraceTest = StoreFixture;

TEST_F(StoreTraceTest, HasTheOperationsAndTransfersOfItsPeriodAlone) {
  options_.page_locked = false;
  Create();
  Open();
  const std::string bytes = RandomBytes(3'000'000, 1);
  ASSERT_OK(store_->Put(BytesItem("before", bytes)));
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->StopTrace().status()));
  ASSERT_OK(store_->StartTrace());
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->StartTrace()));
  ASSERT_OK(store_->Put(BytesItem("during", bytes)));
  EXPECT_EQ(Get("during"), bytes);
  ASSERT_OK(Delete("during"));
  auto text = store_->StopTrace();
  ASSERT_OK(text);
  ASSERT_OK(store_->Put(BytesItem("after", bytes)));
  const auto count = [&](const std::string& part) {
    size_t found = 0;
    for (size_t at = text->find(part); at != std::string::npos; at = text->find(part, at + 1)) ++found;
    return found;
  };
  EXPECT_EQ(count(R"("name":"stage")"), 1u);
  EXPECT_EQ(count(R"("name":"put")"), 1u);
  EXPECT_EQ(count(R"("name":"get")"), 1u);
  EXPECT_EQ(count(R"("name":"delete")"), 1u);
  EXPECT_EQ(count(R"("name":"commit")"), 2u);
  EXPECT_GE(count(R"("name":"sync")"), 1u);
  EXPECT_EQ(count(R"("name":"index_write")"), 2u);
  EXPECT_GE(count(R"("name":"read","cat":"transfer")"), 3u);
  EXPECT_GE(count(R"("name":"write","cat":"transfer")"), 3u);
  EXPECT_EQ(count(R"("first":"before")") + count(R"("first":"after")"), 0u);
  EXPECT_GE(count(R"("first":"during")"), 2u);
}

TEST_F(StoreTraceTest, OutlivesTheStoreThatItIsOf) {
  Create();
  Open();
  ASSERT_OK(store_->StartTrace(5));
  ASSERT_OK(store_->Put(BytesItem("a", "b")));
  ASSERT_OK(store_->Close());
  auto text = store_->StopTrace();
  ASSERT_OK(text);
  EXPECT_NE(text->find("\"forgotten_events\""), std::string::npos);
  EXPECT_FALSE(store_->StartTrace().ok());
}

}  // namespace
}  // namespace tensorshelf
