// Many puts and then many gets at a time through a small staging arena, at full size: that all come through, how fast,
// and how much the process grew meanwhile. Every transfer is staged, since all memory lies a byte off.
//
//   staging_pressure <directory> [threads=64] [MiB each=256] [arena MiB=8]
//
// All threads put the same memory and get into the same memory, so that what the process grows by is the store's.

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "store/store.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

uint64_t StatusMebibytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::stoull(line.substr(field.size() + 1)) >> 10;
  }
  return 0;
}

// Seconds that `work` takes on as many threads, each with its number; the first error ends the program's success.
double OnThreads(size_t count, const std::function<absl::Status(size_t)>& work, absl::Status* first_error) {
  std::vector<absl::Status> statuses(count);
  std::vector<std::thread> threads;
  const absl::Time begun = absl::Now();
  for (size_t i = 0; i < count; ++i) threads.emplace_back([&, i] { statuses[i] = work(i); });
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) {
    if (first_error->ok()) *first_error = status;
  }
  return absl::ToDoubleSeconds(absl::Now() - begun);
}

int Run(const std::string& directory, size_t threads, uint64_t size, uint64_t arena) {
  const std::string path = directory + "/staging_pressure.shelf";
  CreateOptions create;
  create.capacity = threads * (size + 2 * kMiB);
  create.prefill = Prefill::kNone;
  absl::Status status = Store::Create(path, create);
  StoreOptions options;
  options.staging_bytes = arena;
  options.result_pool_bytes = 0;
  options.background_fill = false;
  absl::StatusOr<std::unique_ptr<Store>> store =
      status.ok() ? Store::Open(path, options) : absl::StatusOr<std::unique_ptr<Store>>(status);
  if (!store.ok()) {
    std::cerr << store.status() << "\n";
    return 1;
  }
  std::vector<std::byte> source(size + 1), target(size + 1);
  std::mt19937_64 random(1);
  std::generate(source.begin(), source.end(), [&] { return static_cast<std::byte>(random()); });
  std::ofstream("/proc/self/clear_refs") << "5" << std::flush;
  const uint64_t before = StatusMebibytes("VmRSS");
  const auto name = [](size_t i) { return absl::StrCat("t", i); };
  const double put_s = OnThreads(
      threads,
      [&](size_t i) {
        return (*store)
            ->Put({.name = name(i), .kind = ObjectKind::kBytes, .bytes = std::span(source).subspan(1)})
            .status();
      },
      &status);
  const double get_s = OnThreads(
      threads,
      [&](size_t i) {
        const auto object = (*store)->Find(name(i));
        if (!object.ok()) return object.status();
        const ReadRequest request{.object = &*object, .offset = 0, .to = std::span(target).subspan(1)};
        return (*store)->Read({&request, 1}, {});
      },
      &status);
  if (status.ok() && !std::equal(target.begin() + 1, target.end(), source.begin() + 1)) {
    status = absl::DataLossError("what was read differs");
  }
  const double mib = static_cast<double>(threads * size) / kMiB;
  std::cout << threads << " x " << size / kMiB << " MiB through " << arena / kMiB << " MiB: put " << mib / put_s
            << " MiB/s, get " << mib / get_s << " MiB/s, grew by "
            << std::max(StatusMebibytes("VmHWM"), before) - before << " MiB\n";
  if (!status.ok()) std::cerr << status << "\n";
  const bool good = status.ok() && (*store)->Close().ok();
  store->reset();
  std::filesystem::remove_all(path);
  return good ? 0 : 1;
}

}  // namespace
}  // namespace tensorshelf

int main(int argc, char** argv) {
  const auto number = [&](int i, uint64_t otherwise) { return argc > i ? std::stoull(argv[i]) : otherwise; };
  if (argc < 2) {
    std::cerr << "staging_pressure <directory> [threads=64] [MiB each=256] [arena MiB=8]\n";
    return 2;
  }
  return tensorshelf::Run(argv[1], number(2, 64), number(3, 256) << 20, number(4, 8) << 20);
}
