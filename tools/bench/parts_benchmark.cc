// The parts of a put and a get, one at a time, in memory: what each costs in CPU. Google Benchmark's own options apply;
// bytes_per_second is per second of CPU.

#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/foundation/hash.h"
#include "index/record_codec.h"
#include "store/extent_allocator.h"
#include "store/operation_meters.h"
#include "store/trailer.h"

namespace tensorshelf {
namespace {

std::vector<std::byte> RandomBytes(size_t size) {
  std::mt19937_64 random(1);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

ObjectRecord RecordWithSums(size_t sums) {
  ObjectRecord record;
  record.placement = Placement::kExtents;
  record.generation = 1;
  record.logical_bytes = record.stored_bytes = uint64_t{sums} << 16;
  record.shape = {sums, uint64_t{1} << 16};
  record.columns = {{{.file_id = 1, .units = static_cast<uint32_t>(sums * 16), .first_unit = 272}}};
  record.sums.assign(sums, 7);
  return record;
}

void BM_Hash128(benchmark::State& state) {
  const auto bytes = RandomBytes(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(Hash128(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Hash128)->Arg(4 << 10)->Arg(64 << 10)->Arg(1 << 20);

// What a staged transfer adds: the copy.
void BM_Copy(benchmark::State& state) {
  const auto from = RandomBytes(static_cast<size_t>(state.range(0)));
  std::vector<std::byte> to(from.size());
  for (auto _ : state) {
    std::memcpy(to.data(), from.data(), from.size());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_Copy)->Arg(64 << 10)->Arg(1 << 20)->Arg(64 << 20);

void BM_EncodeRecord(benchmark::State& state) {
  const ObjectRecord record = RecordWithSums(static_cast<size_t>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(EncodeRecord(record));
}
BENCHMARK(BM_EncodeRecord)->Arg(1)->Arg(64);

void BM_DecodeRecord(benchmark::State& state) {
  const std::string row = *EncodeRecord(RecordWithSums(static_cast<size_t>(state.range(0))));
  for (auto _ : state) benchmark::DoNotOptimize(DecodeRecord(std::as_bytes(std::span(row))));
}
BENCHMARK(BM_DecodeRecord)->Arg(1)->Arg(64);

// What every operation pays for being counted and timed; several threads count the same one.
void BM_CountOperation(benchmark::State& state) {
  static OperationMeters meters;
  for (auto _ : state) {
    OperationTimer timer(meters, Operation::kGet);
    timer.End(absl::OkStatus(), 1, 4096);
  }
}
BENCHMARK(BM_CountOperation)->Threads(1)->Threads(2);

// Replaces random objects in a store that is nine tenths full of them.
void BM_ReserveAndFree(benchmark::State& state) {
  constexpr uint64_t kUnits = uint64_t{1} << 24;  // 64 GiB
  const auto units = static_cast<uint64_t>(state.range(0));
  ExtentAllocator allocator;
  if (!allocator.AddFile({.file_id = 1, .first_unit = 0, .end_unit = kUnits}).ok()) return state.SkipWithError("file");
  const ReserveRequest request{.units = units, .large = units * 4096 >= kLargeObjectBytes};
  std::vector<std::vector<Extent>> live;
  while (live.size() * units < kUnits / 10 * 9) live.push_back(*allocator.Reserve(request));
  std::mt19937_64 random(1);
  for (auto _ : state) {
    std::vector<Extent>& one = live[random() % live.size()];
    allocator.Move(one, SpaceState::kReserved, SpaceState::kFree);
    one = *allocator.Reserve(request);
  }
}
BENCHMARK(BM_ReserveAndFree)->Arg(1)->Arg(16)->Arg(4096);

void BM_RebuildAllocator(benchmark::State& state) {
  const auto count = static_cast<uint64_t>(state.range(0));
  const SpaceFile file{.file_id = 1, .first_unit = 0, .end_unit = 2 * count};
  std::vector<OwnedExtent> owned;
  for (uint64_t i = 0; i < count; ++i) owned.push_back({i + 1, {.file_id = 1, .units = 1, .first_unit = 2 * i}});
  for (auto _ : state) benchmark::DoNotOptimize(ExtentAllocator::Rebuild({&file, 1}, owned));
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(BM_RebuildAllocator)->Arg(1 << 20)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace tensorshelf
