#include "store/freemap.h"

#include <cstring>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/foundation/hash.h"
#include "engine/foundation/little_endian.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

// magic[8] | u32 version | u32 file_count | store_uuid[16] | u64 epoch, commit, name_count, object_count
// | u64 shared_count, orphan_count
// per file: u32 file_id, u32 0, u64 first_unit, end_unit, counters[7] in the order of SpaceState, run_count,
//           run_count x (u64 first, u64 units)
// shared_count x (u64 generation, u64 names) | orphan_count x u64 generation | u64 H(all before)
constexpr char kMagic[] = "TSHFREEM";
constexpr uint32_t kVersion = 1;
constexpr uint64_t kUnitMax = std::numeric_limits<uint64_t>::max() / kUnitBytes;

absl::Status Bad(const std::string& what) { return absl::DataLossError(absl::StrCat("freemap: ", what)); }

// What does not hold in a file's map, "" when everything does.
std::string Problem(const Freemap::FileMap& map) {
  const SpaceFile& file = map.file;
  const std::string who = absl::StrCat("data file ", file.file_id, ": ");
  if (file.first_unit >= file.end_unit || file.end_unit > kUnitMax) {
    return absl::StrCat(who, "units [", file.first_unit, ", ", file.end_unit, ") are no data area");
  }
  uint64_t free = 0, least = file.first_unit;
  for (const UnitRun& run : map.free) {
    if (run.units == 0 || run.first < least || run.first >= file.end_unit || run.units > file.end_unit - run.first) {
      return absl::StrCat(who, "free run of ", run.units, " units at ", run.first,
                          " is empty, out of order, touches the one before it or is outside the data area");
    }
    least = run.end() + 1;  // two that touch would be one
    free += run.units;
  }
  // Each counter at most the capacity first: the sum of seven cannot overflow then.
  for (const uint64_t units : map.counters.units) {
    if (units > file.units()) return absl::StrCat(who, "a counter of ", units, " is over the capacity ", file.units());
  }
  if (map.counters.total() != file.units()) {
    return absl::StrCat(who, "the counters sum to ", map.counters.total(), ", the capacity is ", file.units());
  }
  if (map.counters[SpaceState::kFree] != free) {
    return absl::StrCat(who, map.counters[SpaceState::kFree], " units are counted as free, the runs have ", free);
  }
  return "";
}

std::string Problem(const Freemap& freemap) {
  for (size_t i = 0; i < freemap.files.size(); ++i) {
    if (i > 0 && freemap.files[i].file.file_id <= freemap.files[i - 1].file.file_id) {
      return absl::StrCat("file_id ", freemap.files[i].file.file_id, " is not above the one before it");
    }
    std::string problem = Problem(freemap.files[i]);
    if (!problem.empty()) return problem;
  }
  for (size_t i = 0; i < freemap.shared.size(); ++i) {
    const Freemap::SharedGeneration& shared = freemap.shared[i];
    if (shared.names < 2 || (i > 0 && shared.generation <= freemap.shared[i - 1].generation)) {
      return absl::StrCat("shared generation ", shared.generation, " with ", shared.names,
                          " names is out of order or not shared");
    }
  }
  for (size_t i = 1; i < freemap.orphans.size(); ++i) {
    if (freemap.orphans[i] <= freemap.orphans[i - 1]) {
      return absl::StrCat("orphan generation ", freemap.orphans[i], " is out of order");
    }
  }
  return "";
}

// A count of items of `bytes_each` that the rest of the input can hold; nothing is allocated for more.
std::optional<uint64_t> ReadCount(ByteReader& reader, size_t bytes_each) {
  const auto count = reader.Little<uint64_t>();
  if (!count || *count > reader.rest().size() / bytes_each) return std::nullopt;
  return count;
}

bool ReadFile(ByteReader& reader, Freemap::FileMap& map) {
  const auto file_id = reader.Little<uint32_t>();
  const auto reserved = reader.Little<uint32_t>();
  const auto first_unit = reader.Little<uint64_t>();
  const auto end_unit = reader.Little<uint64_t>();
  if (!file_id || !reserved || !first_unit || !end_unit) return false;
  map.file = {*file_id, *first_unit, *end_unit};
  for (uint64_t& units : map.counters.units) {
    const auto value = reader.Little<uint64_t>();
    if (!value) return false;
    units = *value;
  }
  const auto count = ReadCount(reader, 2 * sizeof(uint64_t));
  if (!count) return false;
  map.free.resize(*count);
  for (UnitRun& run : map.free) run = {*reader.Little<uint64_t>(), *reader.Little<uint64_t>()};
  return true;
}

bool ReadBody(ByteReader& reader, Freemap& freemap) {
  const auto file_count = reader.Little<uint32_t>();
  const auto uuid = reader.Bytes(freemap.store_uuid.size());
  if (!file_count || !uuid) return false;
  std::memcpy(freemap.store_uuid.data(), uuid->data(), uuid->size());
  for (uint64_t* field : {&freemap.epoch, &freemap.commit, &freemap.name_count, &freemap.object_count}) {
    const auto value = reader.Little<uint64_t>();
    if (!value) return false;
    *field = *value;
  }
  const auto shared_count = ReadCount(reader, 2 * sizeof(uint64_t));
  const auto orphan_count = ReadCount(reader, sizeof(uint64_t));
  if (!shared_count || !orphan_count) return false;
  for (uint32_t i = 0; i < *file_count; ++i) {
    if (!ReadFile(reader, freemap.files.emplace_back())) return false;
  }
  if (reader.rest().size() != *shared_count * 2 * sizeof(uint64_t) + *orphan_count * sizeof(uint64_t)) return false;
  freemap.shared.resize(*shared_count);
  for (auto& shared : freemap.shared) shared = {*reader.Little<uint64_t>(), *reader.Little<uint64_t>()};
  freemap.orphans.resize(*orphan_count);
  for (uint64_t& orphan : freemap.orphans) orphan = *reader.Little<uint64_t>();
  return true;
}

}  // namespace

std::string EncodeFreemap(const Freemap& freemap) {
  TS_CHECK(Problem(freemap).empty());
  std::string bytes(kMagic, 8);
  ByteWriter writer(&bytes);
  writer.Little(kVersion);
  writer.Little(static_cast<uint32_t>(freemap.files.size()));
  writer.Bytes(std::as_bytes(std::span(freemap.store_uuid)));
  writer.Little(freemap.epoch);
  writer.Little(freemap.commit);
  writer.Little(freemap.name_count);
  writer.Little(freemap.object_count);
  writer.Little(uint64_t{freemap.shared.size()});
  writer.Little(uint64_t{freemap.orphans.size()});
  for (const Freemap::FileMap& map : freemap.files) {
    writer.Little(map.file.file_id);
    writer.Zeros(4);
    writer.Little(map.file.first_unit);
    writer.Little(map.file.end_unit);
    for (const uint64_t units : map.counters.units) writer.Little(units);
    writer.Little(uint64_t{map.free.size()});
    for (const UnitRun& run : map.free) {
      writer.Little(run.first);
      writer.Little(run.units);
    }
  }
  for (const Freemap::SharedGeneration& shared : freemap.shared) {
    writer.Little(shared.generation);
    writer.Little(shared.names);
  }
  for (const uint64_t orphan : freemap.orphans) writer.Little(orphan);
  writer.Little(Hash64(BytesOf(bytes)));
  return bytes;
}

absl::StatusOr<Freemap> DecodeFreemap(const std::string& bytes) {
  constexpr size_t kHashBytes = sizeof(uint64_t);
  if (bytes.size() < 12 + kHashBytes || std::memcmp(bytes.data(), kMagic, 8) != 0) {
    return Bad(absl::StrCat(bytes.size(), " bytes without the magic \"", kMagic, "\""));
  }
  const auto all = BytesOf(bytes);
  const uint32_t version = LoadLittle<uint32_t>(all.data() + 8);
  if (version != kVersion) return Bad(absl::StrCat("version is ", version, ", this build reads ", kVersion));
  const auto body = all.first(all.size() - kHashBytes);
  const uint64_t stored = LoadLittle<uint64_t>(all.data() + body.size());
  const uint64_t computed = Hash64(body);
  if (stored != computed) {
    return Bad(absl::StrCat("hash is ", absl::Hex(stored), ", the bytes have ", absl::Hex(computed)));
  }
  ByteReader reader(body.subspan(12));
  Freemap freemap;
  if (!ReadBody(reader, freemap)) return Bad("a count does not agree with the length of the file");
  const std::string problem = Problem(freemap);
  if (!problem.empty()) return Bad(problem);
  return freemap;
}

}  // namespace tensorshelf
