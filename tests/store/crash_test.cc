// Power cuts at every step of real workloads: each file operation is logged, the log is cut after any entry, and what
// was not synced is kept, dropped, torn or turned into garbage. Every state must open and hold what was acknowledged.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/linux_disk.h"
#include "tests/store/store_fixture.h"
#include "tests/store/store_model.h"
#include "tests/testing/crash_log.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::CrashLog;
using testing::CrashPolicy;
using testing::CrashReplay;
using testing::IsOk;
using testing::LoggedOp;
using testing::LoggingDisk;
using testing::LoggingObserver;
using testing::MemoryDisk;

constexpr uint64_t kCapacity = uint64_t{8} << 20;
constexpr size_t kRandomStates = 60;  // of one random workload

// Where syncs cost nothing: what is durable is what the log says.
std::string ScratchDirectory() {
  const bool in_memory = std::filesystem::is_directory("/dev/shm") && ::access("/dev/shm", W_OK) == 0;
  std::string pattern =
      (in_memory ? std::string("/dev/shm") : std::filesystem::current_path().string()) + "/tensorshelf_crash.XXXXXX";
  return mkdtemp(pattern.data());
}

class CrashTest : public ::testing::Test {
 protected:
  CrashTest() : root_(ScratchDirectory()), disk_(base_.get(), &log_), observer_(&log_) {
    std::filesystem::create_directory(root_ + "/work");
  }
  ~CrashTest() override {
    store_.reset();
    std::filesystem::remove_all(root_);
  }

  static StoreOptions SmallOptions() {
    StoreOptions options;
    options.staging_bytes = 2 << 20;
    options.result_pool_bytes = 4 << 20;
    options.page_locked = false;
    options.background_fill = false;
    options.idle_witness_ms = 100000;
    options.io.worker_count = 1;
    options.io.io_size = 256 << 10;
    options.index.memtable_bytes = 64 << 10;
    options.index.block_cache_bytes = 1 << 20;
    return options;
  }
  absl::StatusOr<std::unique_ptr<Store>> OpenOn(MemoryDisk& crashed) const {
    StoreOptions options = SmallOptions();
    options.disk = &crashed;
    return Store::Open(path(), options);
  }
  std::string path() const { return root_ + "/work/shelf"; }

  void Create() {
    CreateOptions options;
    options.capacity = kCapacity;
    options.prefill = Prefill::kNone;
    options.disk = &disk_;
    options.observer = &observer_;
    log_.Mark("begin", 0);
    ASSERT_OK(Store::Create(path(), options));
    log_.Mark("ack", 0);
  }
  void Open() {
    StoreOptions options = SmallOptions();
    options.disk = &disk_;
    options.index.observer = &observer_;
    ASSERT_OK_AND_ASSIGN(store_, Store::Open(path(), options));
  }
  void Close() {
    ASSERT_OK(store_->Close());
    store_.reset();
  }

  // Runs the operation with marks around it; states_ gets what the store holds afterwards.
  void Run(const ModelOp& op) {
    if (op.kind == ModelOp::Kind::kReopen) {
      Close();
      Open();
      return;
    }
    Model after = states_.back();
    const absl::StatusCode expected = Apply(after, op);
    log_.Mark("begin", states_.size());
    const absl::Status status = Apply(*store_, op);
    ASSERT_EQ(status.code(), expected) << Describe(op) << ": " << status;
    log_.Mark("ack", states_.size());
    states_.push_back(after);
  }

  // About `states` crashed states: crash points spread evenly, each with everything unsynced lost and with two other
  // outcomes; once every entry is a crash point, more outcomes of each.
  using Check = std::function<std::string(MemoryDisk& crashed, size_t acknowledged, size_t begun)>;
  void CrashEverywhere(size_t states, uint64_t seed, const Check& check) {
    CrashReplay replay(log_, root_ + "/work");
    const size_t total = log_.ops().size();
    const size_t step = std::max<size_t>(1, total * 3 / states);
    const size_t outcomes = std::max<size_t>(2, states / total);
    for (size_t point = 1 + seed % step; point <= total; point += step) {
      replay.AdvanceTo(point);
      size_t acknowledged = 0, begun = 0;
      for (size_t i = 0; i < point; ++i) {
        if (log_.ops()[i].kind != LoggedOp::Kind::kMark) continue;
        (log_.ops()[i].path == "ack" ? acknowledged : begun) = log_.ops()[i].offset + 1;
      }
      for (size_t outcome = 0; outcome <= outcomes; ++outcome) {
        if (outcome != 0 && replay.disk().unsynced_count() == 0) break;
        const size_t policy = outcome == 0 ? 0 : 1 + (point + seed + 3 * (outcome - 1)) % kPolicies;
        const auto crashed = Crash(replay, policy, (seed * 1000003 + point) * 31 + outcome / kPolicies);
        ASSERT_OK(CrashReplay::Export(*crashed, path() + "/index"));
        const std::string problem = check(*crashed, acknowledged, begun);
        ++tried_;
        ASSERT_EQ(problem, "") << "seed " << seed << ", crash before entry " << point << " of " << total << " ("
                               << Where(point) << "), policy " << policy << ", acknowledged " << acknowledged
                               << ", begun " << begun;
      }
    }
  }

  std::string Where(size_t point) const {
    std::string text;
    for (size_t i = point < 4 ? 0 : point - 4; i < point; ++i) {
      const LoggedOp& op = log_.ops()[i];
      absl::StrAppend(&text, " ", static_cast<int>(op.kind), ":", op.path, "@", op.offset, "+", op.bytes.size());
    }
    return text;
  }

  // What must hold of every state of a single-threaded workload.
  std::string CheckState(MemoryDisk& crashed, size_t acknowledged, size_t begun) {
    auto store = OpenOn(crashed);
    if (acknowledged == 0 && absl::IsNotFound(store.status())) return "";  // not created yet
    if (!store.ok()) return store.status().ToString();
    const Model* found = nullptr;
    std::string difference;
    for (const size_t state : {std::max<size_t>(acknowledged, 1), begun}) {
      if (state == 0 || state > states_.size()) continue;
      difference = Difference(**store, Durable(states_[state - 1]));
      if (!difference.empty()) continue;
      found = &states_[state - 1];
      break;
    }
    if (found == nullptr) return "holds neither state: " + difference;
    return GoesOn(*std::move(store), crashed, Durable(*found));
  }

  // The store accounts for its space, takes a put, and everything is there again after a reopen.
  std::string GoesOn(std::unique_ptr<Store> store, MemoryDisk& crashed, Model model) {
    if (const std::string problem = SpaceProblem(*store); !problem.empty()) return problem;
    model["after"] = {.size = 90000, .seed = tried_};
    const absl::Status put = Apply(*store, {.kind = ModelOp::Kind::kPut, .name = "after", .value = model["after"]});
    if (!put.ok()) return "put after the crash: " + put.ToString();
    if (const absl::Status closed = store->Close(); !closed.ok()) return "close: " + closed.ToString();
    store.reset();
    if (tried_ % 3 != 0) return "";
    auto again = OpenOn(crashed);
    if (!again.ok()) return "second open: " + again.status().ToString();
    return Difference(**again, model);
  }

  static constexpr size_t kPolicies = 7;  // beside dropping everything

  std::unique_ptr<MemoryDisk> Crash(const CrashReplay& replay, size_t policy, uint64_t seed) {
    uint64_t newest = 0;
    CrashPolicy look = CrashPolicy::KeepUnsynced();
    look.keeps_sector = [&](const CrashPolicy::Sector& sector) {
      newest = std::max(newest, sector.write_sequence);
      return true;
    };
    switch (policy) {
      case 0:
        return replay.disk().AfterCrash(CrashPolicy::DropUnsynced());
      case 1:
        return replay.disk().AfterCrash(CrashPolicy::KeepUnsynced());
      case 2:
        return replay.disk().AfterCrash(CrashPolicy::RandomWrites(seed));
      case 3: {
        // Sectors of a data file in any combination; RocksDB's files, which are appended to, end somewhere.
        CrashPolicy sectors = CrashPolicy::RandomSectors(seed);
        CrashPolicy writes = CrashPolicy::RandomWrites(seed);
        sectors.keeps_sector = [any = sectors.keeps_sector,
                                whole = writes.keeps_sector](const CrashPolicy::Sector& sector) {
          return absl::EndsWith(sector.path, ".tsd") ? any(sector) : whole(sector);
        };
        return replay.disk().AfterCrash(sectors);
      }
      case 4:
      case 5: {  // the newest write is torn
        replay.disk().AfterCrash(look);
        const uint64_t tear = policy == 4 ? 512 : 4096;
        CrashPolicy torn = CrashPolicy::KeepUnsynced();
        uint64_t kept = 0;
        torn.keeps_sector = [newest, tear, kept](const CrashPolicy::Sector& sector) mutable {
          if (sector.write_sequence != newest) return true;
          kept += sector.length;
          return kept <= tear;
        };
        return replay.disk().AfterCrash(torn);
      }
      case 6: {  // all but one
        replay.disk().AfterCrash(look);
        CrashPolicy one = CrashPolicy::KeepUnsynced();
        const uint64_t lost = newest - std::min<uint64_t>(newest, seed % 4);
        one.keeps_sector = [lost](const CrashPolicy::Sector& sector) { return sector.write_sequence != lost; };
        return replay.disk().AfterCrash(one);
      }
      default: {  // half of the unsynced sectors hold anything at all
        std::vector<CrashPolicy::Sector> sectors;
        CrashPolicy garbage = CrashPolicy::RandomWrites(seed);
        garbage.keeps_sector = [&sectors, keeps = garbage.keeps_sector](const CrashPolicy::Sector& sector) {
          const bool mangled =
              !keeps(sector) && (absl::EndsWith(sector.path, ".tsd") || absl::EndsWith(sector.path, ".log"));
          if (mangled) sectors.push_back(sector);
          return true;
        };
        auto crashed = replay.disk().AfterCrash(garbage);
        for (const CrashPolicy::Sector& sector : sectors) {
          auto file = crashed->Open(sector.path, {.writable = true, .direct = false});
          if (!file.ok()) continue;  // its creation was not kept
          const std::string bytes = RandomBytes(sector.length, seed + sector.offset);
          EXPECT_OK(WriteExactly(**file, sector.offset, std::as_bytes(std::span(bytes))));
        }
        return crashed;
      }
    }
  }

  const std::string root_;
  const std::unique_ptr<Disk> base_ = NewLinuxDisk();
  CrashLog log_;
  LoggingDisk disk_;
  LoggingObserver observer_;
  std::unique_ptr<Store> store_;
  std::vector<Model> states_{Model{}};  // [0]: just created
  uint64_t tried_ = 0;
};

ModelOp PutOp(const std::string& name, uint64_t size, uint64_t seed) {
  return {.kind = ModelOp::Kind::kPut, .name = name, .value = {.size = size, .seed = seed}};
}

TEST_F(CrashTest, CreationIsWholeOrNothingAndCanBeRepeated) {
  Create();
  CrashEverywhere(testing::Scaled(75), testing::Seed(1),
                  [&](MemoryDisk& crashed, size_t acknowledged, size_t begun) -> std::string {
                    std::string problem = CheckState(crashed, acknowledged, begun);
                    if (!problem.empty() || crashed.Stat(path() + "/STORE")->kind == PathInfo::Kind::kFile)
                      return problem;
                    CreateOptions options;
                    options.capacity = kCapacity;
                    options.prefill = Prefill::kNone;
                    options.disk = &crashed;
                    if (const absl::Status created = Store::Create(path(), options); !created.ok())
                      return created.ToString();
                    return CheckState(crashed, 1, 1);
                  });
  testing::ReportTried(tried_, testing::Seed(1));
  EXPECT_GT(tried_, testing::Scaled(20));
}

// Each kind of change once, so that every kind of crash point is met.
TEST_F(CrashTest, OneOfEachOperation) {
  using Kind = ModelOp::Kind;
  Create();
  Open();
  const std::vector<ModelOp> ops = {
      PutOp("a/inline", 100, 1),
      PutOp("a/small", 5000, 2),
      PutOp("a/trailer", 150000, 3),
      PutOp("a/large", 1 << 20, 4),
      PutOp("a/small", 6000, 5),
      {.kind = Kind::kClone, .name = "a/large", .to = "b/large"},
      {.kind = Kind::kMove, .name = "a/large"},
      {.kind = Kind::kMove, .name = "a/small"},
      {.kind = Kind::kPutMany, .parts = {PutOp("c/1", 10, 1), PutOp("c/2", 9000, 2), PutOp("c/3", 70000, 3)}},
      {.kind = Kind::kFlush},
      {.kind = Kind::kTransaction,
       .parts = {PutOp("c/2", 8000, 4),
                 {.kind = Kind::kDelete, .name = "c/1"},
                 PutOp("d", 200000, 5),
                 {.kind = Kind::kRename, .name = "a/small", .to = "e"}}},
      {.kind = Kind::kReopen},
      {.kind = Kind::kClonePrefix, .name = "a/", .to = "step/"},
      {.kind = Kind::kDelete, .name = "a/large"},
      {.kind = Kind::kDelete, .name = "b/large"},
      PutOp("a/large", 900000, 6),
      {.kind = Kind::kMove, .name = "a/large"},
      {.kind = Kind::kRenamePrefix, .name = "c/", .to = "f/"},
      {.kind = Kind::kDeletePrefix, .name = "a/"},
      {.kind = Kind::kReopen},
      PutOp("last", 300000, 7),
      {.kind = Kind::kDelete, .name = "d"},
      {.kind = Kind::kCompact},
      PutOp("over the old places", 500000, 8),
  };
  for (const ModelOp& op : ops) {
    ASSERT_NO_FATAL_FAILURE(Run(op)) << Describe(op);
  }
  Close();
  CrashEverywhere(testing::Scaled(450), testing::Seed(2), [&](MemoryDisk& crashed, size_t acknowledged, size_t begun) {
    return CheckState(crashed, acknowledged, begun);
  });
  testing::ReportTried(tried_, testing::Seed(2));
  EXPECT_GT(tried_, testing::Scaled(150));
}

// Parameter n has seed n after the first.
class RandomCrashTest : public CrashTest, public ::testing::WithParamInterface<uint64_t> {};

TEST_P(RandomCrashTest, RandomWorkload) {
  const uint64_t seed = testing::Seed(11) + GetParam();
  std::mt19937_64 random(seed);
  const ModelChoices choices{.names = {"a/0", "a/1", "aa/0", "b/0", "b/1", "c"},
                             .prefixes = {"a", "a/", "b/", "aa"},
                             .size_max = 400000,
                             .ephemeral = true,
                             .reopen = true};
  Create();
  Open();
  for (int i = 0; i < 60; ++i) {
    ModelOp op = RandomOp(random, choices);
    Model after = states_.back();
    if (op.kind == ModelOp::Kind::kReopen) {
      // Ephemeral names end here without an operation of their own.
      Run(op);
      log_.Mark("begin", states_.size());
      log_.Mark("ack", states_.size());
      states_.push_back(Durable(after));
      continue;
    }
    ASSERT_NO_FATAL_FAILURE(Run(op)) << "seed " << seed << " op " << i << " " << Describe(op);
  }
  Close();
  CrashEverywhere(kRandomStates, seed, [&](MemoryDisk& crashed, size_t acknowledged, size_t begun) {
    return CheckState(crashed, acknowledged, begun);
  });
  testing::ReportTried(tried_, seed);
  EXPECT_GT(tried_, kRandomStates / 3);
}
INSTANTIATE_TEST_SUITE_P(Seeds, RandomCrashTest, ::testing::Range<uint64_t>(0, testing::Scaled(10)));

// Three threads commit at once, each in its own prefix; each must find its own acknowledged puts.
TEST_F(CrashTest, ConcurrentCommits) {
  constexpr uint64_t kThreads = 3, kPuts = 12;
  Create();
  Open();
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint64_t i = 0; i < kPuts; ++i) {
        const ModelOp op = PutOp(absl::StrCat(thread, "/", i % 4), 500 + 40000 * ((i + thread) % 3), i);
        ASSERT_OK(Apply(*store_, op));
        log_.Mark("put", thread * kPuts + i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Close();
  const uint64_t seed = testing::Seed(4);
  CrashReplay replay(log_, root_ + "/work");
  const size_t total = log_.ops().size();
  std::vector<uint64_t> acknowledged(kThreads, 0);
  for (size_t point = 1; point <= total; ++point) {
    const LoggedOp& before = log_.ops()[point - 1];
    if (before.kind == LoggedOp::Kind::kMark && before.path == "put") {
      acknowledged[before.offset / kPuts] = before.offset % kPuts + 1;
    }
    if (point % 4 != seed % 4) continue;
    replay.AdvanceTo(point);
    const size_t policy = point / 4 % (kPolicies + 1);
    const auto crashed = Crash(replay, policy, seed * 1000003 + point);
    ASSERT_OK(CrashReplay::Export(*crashed, path() + "/index"));
    auto store = OpenOn(*crashed);
    ++tried_;
    if (absl::IsNotFound(store.status()) && acknowledged == std::vector<uint64_t>(kThreads, 0)) continue;
    ASSERT_OK(store) << "before entry " << point << ", policy " << policy << Where(point);
    for (uint64_t thread = 0; thread < kThreads; ++thread) {
      // After i puts, or after the one that was on its way.
      std::string difference;
      for (const uint64_t puts : {acknowledged[thread], std::min(acknowledged[thread] + 1, kPuts)}) {
        difference.clear();
        for (uint64_t i = puts < 4 ? 0 : puts - 4; i < puts && difference.empty(); ++i) {
          const ModelValue value{.size = 500 + 40000 * ((i + thread) % 3), .seed = i};
          const std::string name = absl::StrCat(thread, "/", i % 4);
          auto object = (*store)->Find(name);
          if (!object.ok() || object->size_bytes() != value.size) {
            difference = absl::StrCat(name, " is not put ", i, ": ", object.status().ToString());
            continue;
          }
          std::string bytes(value.size, '\0');
          const ReadRequest request{.object = &*object, .offset = 0, .to = Span(bytes)};
          ASSERT_OK((*store)->Read({&request, 1}, {})) << name;
          if (bytes != value.bytes()) difference = name + ": other bytes";
        }
        if (difference.empty()) break;
      }
      ASSERT_EQ(difference, "") << "before entry " << point << ", policy " << policy << ", acknowledged "
                                << acknowledged[thread] << Where(point);
    }
    ASSERT_EQ(SpaceProblem(**store), "");
  }
  testing::ReportTried(tried_, seed);
  EXPECT_GT(tried_, 50u);
}

}  // namespace
}  // namespace tensorshelf
