// Goal: what a store does is counted under the right operation, once, with its bytes.
// Method: each operation a known number of times on a small store; the page and the old stats are compared with that.

#include <gtest/gtest.h>

#include <thread>

#include "store/live_page.h"
#include "tests/store/store_fixture.h"

namespace tensorshelf {
namespace {

class LiveCountersTest : public StoreFixture {
 protected:
  LiveCountersTest() {
    options_.page_locked = false;
    options_.staging_bytes = 4 << 20;
    options_.background_fill = false;
    options_.idle_witness_ms = 1'000'000;
    Create();
    Open();
  }
  LiveOperation Counted(Operation operation) { return store_->live_page().operation(operation); }
  uint64_t Calls(Operation operation) { return Counted(operation).calls; }
};

TEST_F(LiveCountersTest, PutsCommitsAndSyncs) {
  const std::string small = RandomBytes(100, 1), large = RandomBytes(300'000, 2);
  ASSERT_OK(store_->Put(BytesItem("small", small)));
  ASSERT_OK(store_->Put(std::vector<PutItem>{BytesItem("a", large), BytesItem("b", large)}));
  const LiveOperation puts = Counted(Operation::kPut);
  EXPECT_EQ(puts.calls, 2u);
  EXPECT_EQ(puts.latency.count(), 2u);
  EXPECT_EQ(puts.items, 3u);
  EXPECT_EQ(puts.bytes, 600'100u);
  EXPECT_EQ(puts.errors, 0u);
  EXPECT_EQ(Calls(Operation::kCommit), 2u);
  EXPECT_EQ(Counted(Operation::kCommit).items, 2u);
  EXPECT_EQ(Calls(Operation::kSync), 1u) << "the small one lies in the index";
  EXPECT_EQ(Calls(Operation::kIndexWrite), 2u);
  EXPECT_GT(Counted(Operation::kIndexWrite).bytes, 100u);
  const LivePage page = store_->live_page();
  EXPECT_EQ(page.gauges.names, 3u);
  EXPECT_EQ(page.gauges.commit, store_->info().commit);
  EXPECT_EQ(page.gauges.puts, 3u);
  EXPECT_GE(page.used_devices()[0].write_bytes, 600'000u);
  EXPECT_EQ(page.used_devices()[0].write_latency.count(), page.used_devices()[0].write_ops);
  EXPECT_EQ(page.used_devices()[0].in_flight_ops, 0u);
  // A put is its commit and more, and the times are times.
  EXPECT_GT(puts.latency.sum_ns, Counted(Operation::kIndexWrite).latency.sum_ns);
}

TEST_F(LiveCountersTest, GetsSlicesAndLookups) {
  std::string bytes = RandomBytes(300'000, 2);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  ASSERT_OK_AND_ASSIGN(const Object object, store_->Find("a"));
  EXPECT_EQ(ReadAll(object), bytes);
  EXPECT_EQ(ReadAll(object), bytes);
  const ReadRequest part{.object = &object, .offset = 1000, .to = Span(bytes).first(500)};
  ASSERT_OK(store_->Read({&part, 1}, {}));
  EXPECT_FALSE(store_->Find("nothing").ok());
  const std::vector<std::string> names = {"a", "a"};
  ASSERT_OK(store_->FindMany(names));
  EXPECT_EQ(Calls(Operation::kGet), 2u);
  EXPECT_EQ(Counted(Operation::kGet).bytes, 600'000u);
  EXPECT_EQ(Calls(Operation::kSlice), 1u);
  EXPECT_EQ(Counted(Operation::kSlice).bytes, 500u);
  EXPECT_EQ(Calls(Operation::kFind), 3u);
  EXPECT_EQ(Counted(Operation::kFind).items, 4u);
  EXPECT_EQ(Counted(Operation::kFind).errors, 0u) << "that a name is not there is an answer";
  EXPECT_EQ(store_->stats().reads, 3u);
  EXPECT_EQ(store_->stats().read_bytes, 600'500u);
  EXPECT_EQ(store_->live_page().gauges.leased_objects, 1u);
  EXPECT_GE(store_->live_page().used_devices()[0].read_latency.count(), 1u);
}

TEST_F(LiveCountersTest, DeletesAndOtherNameOperations) {
  const std::string bytes = RandomBytes(100, 1);
  ASSERT_OK(store_->Put(std::vector<PutItem>{BytesItem("x/a", bytes), BytesItem("x/b", bytes), BytesItem("c", bytes)}));
  ASSERT_OK_AND_ASSIGN(Transaction clone, store_->Begin());
  clone.Clone("c", "d");
  ASSERT_OK(clone.Commit());
  ASSERT_OK_AND_ASSIGN(Transaction drop, store_->Begin());
  drop.DeletePrefix("x/");
  ASSERT_OK(drop.Commit());
  EXPECT_FALSE(Delete("nothing").ok());
  EXPECT_EQ(Calls(Operation::kDelete), 1u);
  EXPECT_EQ(Counted(Operation::kDelete).items, 2u);
  EXPECT_EQ(Counted(Operation::kDelete).errors, 1u);
  EXPECT_EQ(Calls(Operation::kNames), 1u);
  EXPECT_EQ(Calls(Operation::kPut), 1u);
}

TEST_F(LiveCountersTest, WhatFailsIsAnErrorAndNothingElse) {
  const std::string bytes = RandomBytes(100, 1);
  PutItem item = BytesItem("a", bytes);
  item.precondition = {.kind = Precondition::Kind::kExists};
  EXPECT_FALSE(store_->Put(item).ok());
  EXPECT_FALSE(store_->Put(BytesItem("", bytes)).ok());
  const LiveOperation puts = Counted(Operation::kPut);
  EXPECT_EQ(puts.calls, 0u);
  EXPECT_EQ(puts.latency.count(), 0u);
  EXPECT_EQ(puts.items, 0u);
  EXPECT_EQ(puts.bytes, 0u);
  EXPECT_EQ(puts.errors, 2u);
}

TEST_F(LiveCountersTest, ViewsAndWaitingTransactionsAreGauges) {
  ASSERT_OK_AND_ASSIGN(auto view, store_->NewView());
  EXPECT_EQ(store_->live_page().gauges.open_views, 1u);
  view.reset();
  EXPECT_EQ(store_->live_page().gauges.open_views, 0u);
  const LiveGauges gauges = store_->live_page().gauges;
  EXPECT_EQ(gauges.capacity,
            gauges.reserved + gauges.live + gauges.parked + gauges.free + gauges.scratch + gauges.limbo + gauges.bad);
  EXPECT_EQ(gauges.arena_buffers, gauges.arena_free_buffers);
  EXPECT_GT(gauges.arena_buffers, 0u);
}

// Of many short calls every sixteenth is timed, and stands for sixteen.
TEST_F(LiveCountersTest, SampledLatenciesAreOfAsManyCalls) {
  const std::string small = RandomBytes(100, 1), large = RandomBytes(20'000, 1);
  ASSERT_OK(store_->Put(BytesItem("small", small)));
  for (int i = 0; i < 60; ++i) EXPECT_EQ(Get("small"), small);
  EXPECT_EQ(Counted(Operation::kGet).latency.count(), 60u) << "the first ones are all timed";
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(Get("small"), small);
  const LiveOperation gets = Counted(Operation::kGet);
  EXPECT_EQ(gets.calls, 1060u);
  EXPECT_GE(gets.latency.count(), 1060u);
  EXPECT_LT(gets.latency.count(), 1060u + 16);
  ASSERT_OK(store_->Put(BytesItem("large", large)));
  for (int i = 0; i < 7; ++i) EXPECT_EQ(Get("large"), large);
  EXPECT_EQ(Counted(Operation::kGet).latency.count(), gets.latency.count() + 7) << "long ones always";
}

TEST_F(LiveCountersTest, NoThreadsCountIsLost) {
  const std::string bytes = RandomBytes(100, 1);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  constexpr uint64_t kThreads = 4, kEach = 500;
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      for (uint64_t j = 0; j < kEach; ++j) EXPECT_EQ(Get("a"), bytes);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Calls(Operation::kGet), kThreads * kEach);
  EXPECT_EQ(Counted(Operation::kGet).bytes, kThreads * kEach * 100);
}

TEST_F(LiveCountersTest, ClosedIsZeros) {
  const std::string bytes = RandomBytes(100, 1);
  ASSERT_OK(store_->Put(BytesItem("a", bytes)));
  ASSERT_OK(store_->Close());
  EXPECT_EQ(Calls(Operation::kPut), 0u);
  EXPECT_EQ(store_->live_page().header.version, kLivePageVersion);
  EXPECT_FALSE(store_->counters_status().ok());
}

}  // namespace
}  // namespace tensorshelf
