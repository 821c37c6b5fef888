// A store of many names: how long it takes to open after a kill and after a clean close, what a lookup costs, and how
// much memory a name takes. `names_benchmark --names=1000000 --folder=/on/the/device`; Google Benchmark's options
// apply.

#include <benchmark/benchmark.h>
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/foundation/lock_order_checks.h"
#include "store/store.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kObjectBytes = 2048;  // one unit each: extents, not inline
constexpr uint64_t kNamesPerCommit = 20000;

struct Setting {
  uint64_t names = 1000000;
  std::string folder = ".";
  std::string path;
};
Setting setting;

std::string Name(uint64_t i) { return "model.layers." + std::to_string(i % 97) + ".experts." + std::to_string(i); }

[[noreturn]] void Fail(const absl::Status& status) {
  std::cerr << "names_benchmark: " << status.ToString() << '\n';
  _exit(1);
}

std::unique_ptr<Store> Open() {
  auto store = Store::Open(setting.path, {.background_fill = false});
  if (!store.ok()) Fail(store.status());
  return *std::move(store);
}

void Make() {
  const uint64_t capacity = (setting.names + kNamesPerCommit) * 4096 + (uint64_t{64} << 20);
  const absl::Status created = Store::Create(setting.path, {.capacity = capacity, .prefill = Prefill::kNone});
  if (!created.ok()) Fail(created);
  const std::unique_ptr<Store> store = Open();
  const std::vector<std::byte> bytes(kObjectBytes, std::byte{7});
  for (uint64_t first = 0; first < setting.names; first += kNamesPerCommit) {
    std::vector<PutItem> items;
    for (uint64_t i = first; i < std::min(setting.names, first + kNamesPerCommit); ++i) {
      items.push_back({.name = Name(i), .kind = ObjectKind::kBytes, .bytes = bytes});
    }
    const auto put = store->Put(items);
    if (!put.ok()) Fail(put.status());
  }
  const absl::Status closed = store->Close();
  if (!closed.ok()) Fail(closed);
}

void WriteAndDie() {
  const std::unique_ptr<Store> store = Open();
  const std::vector<std::byte> bytes(kObjectBytes, std::byte{9});
  const PutItem item{.name = "written before the kill", .kind = ObjectKind::kBytes, .bytes = bytes};
  if (const auto put = store->Put({&item, 1}); !put.ok()) Fail(put.status());
  raise(SIGKILL);
}

// This program again, in a process of its own: RocksDB's threads do not survive a fork.
void RunRole(const std::string& role) {
  const std::string names = "--names=" + std::to_string(setting.names);
  const std::string path = "--path=" + setting.path;
  const pid_t child = fork();
  if (child == 0) {
    execl("/proc/self/exe", "names_benchmark", role.c_str(), names.c_str(), path.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) std::abort();
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) std::exit(1);
}

// The time is that of the call; closing is left out.
void OpenAndTime(benchmark::State& state) {
  const auto begin = std::chrono::steady_clock::now();
  const std::unique_ptr<Store> store = Open();
  state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  if (const absl::Status closed = store->Close(); !closed.ok()) Fail(closed);
}

void BM_OpenAfterKill(benchmark::State& state) {
  for (auto _ : state) {
    RunRole("--write-and-die");
    OpenAndTime(state);
  }
}
BENCHMARK(BM_OpenAfterKill)->Iterations(3)->UseManualTime()->Unit(benchmark::kMillisecond);

void BM_OpenAfterClose(benchmark::State& state) {
  for (auto _ : state) OpenAndTime(state);
}
BENCHMARK(BM_OpenAfterClose)->Iterations(5)->UseManualTime()->Unit(benchmark::kMillisecond);

double ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  uint64_t size = 0, resident = 0;
  statm >> size >> resident;
  return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// Random names over the whole store: all but few miss the cache of decoded records.
void BM_LookupAnywhere(benchmark::State& state) {
  malloc_trim(0);
  const double before = ResidentBytes();
  const std::unique_ptr<Store> store = Open();
  malloc_trim(0);
  const double opened = ResidentBytes();
  std::mt19937_64 random(1);
  for (auto _ : state) {
    const auto found = store->Find(Name(random() % setting.names));
    if (!found.ok()) Fail(found.status());
  }
  const auto names = static_cast<double>(setting.names);
  state.counters["resident_bytes_per_name_opened"] = (opened - before) / names;
  state.counters["resident_bytes_per_name_used"] = (ResidentBytes() - before) / names;
  if (const absl::Status closed = store->Close(); !closed.ok()) Fail(closed);
}
BENCHMARK(BM_LookupAnywhere)->MinTime(3);

void BM_LookupCached(benchmark::State& state) {
  const std::unique_ptr<Store> store = Open();
  std::vector<std::string> names;
  for (uint64_t i = 0; i < 1000; ++i) names.push_back(Name(i * (setting.names / 1000)));
  size_t next = 0;
  for (auto _ : state) {
    const auto found = store->Find(names[next++ % names.size()]);
    if (!found.ok()) Fail(found.status());
  }
  if (const absl::Status closed = store->Close(); !closed.ok()) Fail(closed);
}
BENCHMARK(BM_LookupCached);

int Run(int argc, char** argv) {
  TurnOffLockOrderChecks();
  benchmark::Initialize(&argc, argv);
  CLI::App app("Opening, lookups and memory of a store of many names; Google Benchmark's options apply");
  app.add_option("--names", setting.names, "how many")->check(CLI::Range(uint64_t{1000}, uint64_t{1} << 32));
  app.add_option("--folder", setting.folder, "on the device to measure")->check(CLI::ExistingDirectory);
  bool make = false, write_and_die = false;
  app.add_option("--path", setting.path)->group("");  // these three: how the program calls itself
  app.add_flag("--make", make)->group("");
  app.add_flag("--write-and-die", write_and_die)->group("");
  CLI11_PARSE(app, argc, argv);
  if (make || write_and_die) {
    make ? Make() : WriteAndDie();
    return 0;
  }
  std::string pattern = setting.folder + "/names-benchmark.XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) {
    std::perror(setting.folder.c_str());
    return 1;
  }
  setting.path = pattern + "/shelf";
  RunRole("--make");
  benchmark::RunSpecifiedBenchmarks();
  std::filesystem::remove_all(pattern);
  return 0;
}

}  // namespace
}  // namespace tensorshelf

int main(int argc, char** argv) { return tensorshelf::Run(argc, argv); }
