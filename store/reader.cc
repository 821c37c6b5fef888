#include "store/reader.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/foundation/mutation.h"
#include "engine/foundation/status_macros.h"
#include "store/errors.h"
#include "store/layout.h"
#include "store/name.h"

namespace tensorshelf {
namespace {

constexpr uint64_t kScratchMax = uint64_t{32} << 20;  // bytes of edge blocks in one round
constexpr int kRereadMax = 3;  // a kernel under memory pressure has returned zeros; reading again cured nearly all

std::string Quoted(const std::string& name) { return absl::StrCat("\"", EscapeForTerminal(name), "\""); }

uint64_t RoundUp(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

}  // namespace

struct Reader::Plan {
  // A range of whole blocks (or, unverified, of whole units) that lands in one piece of memory.
  struct Part {
    const ReadItem* item;
    uint64_t offset;  // in the object
    uint64_t length;
    std::byte* memory;
    size_t sums_first = 0;  // in `sums`
    size_t sums_count = 0;
  };
  struct Copy {
    const std::byte* from;
    std::byte* to;
    uint64_t length;
  };
  struct Straddling {  // a block that lies in two extents: hashed from memory afterwards
    size_t part;
    uint64_t block_in_part;
  };

  std::vector<Part> parts;
  std::vector<Copy> copies;
  std::vector<Straddling> straddling;
  std::vector<Segment> segments;
  std::vector<DataFile*> owners;
  std::vector<size_t> part_of_segment;
  std::vector<size_t> sums_at;  // per segment: index into `sums`, or SIZE_MAX
  std::vector<Sum128> sums;
  MemoryPool::Piece scratch;
  uint64_t scratch_used = 0;
};

absl::Status Reader::CheckItem(const ReadItem& item) const {
  const ObjectRecord& record = *item.record;
  const bool beyond = item.offset > record.logical_bytes || item.to.size() > record.logical_bytes - item.offset;
  if (beyond && !TS_MUTATE(range_check_in_debug_only)) {
    return absl::InvalidArgumentError(absl::StrCat(Quoted(*item.name), ": bytes [", item.offset, ", ",
                                                   item.offset + item.to.size(), ") are beyond its ",
                                                   record.logical_bytes, " bytes"));
  }
  if (record.incompat != 0 || record.encoding != 0 || record.sum_algo != 1 ||
      record.stored_bytes != record.logical_bytes) {
    return absl::FailedPreconditionError(
        absl::StrCat(Quoted(*item.name), " uses features that this build does not know: ", "incompat ", record.incompat,
                     ", encoding ", int{record.encoding}, ", sum algorithm ", int{record.sum_algo}));
  }
  if (record.placement == Placement::kInline &&
      (item.payload == nullptr || item.payload->size() != record.logical_bytes)) {
    return absl::DataLossError(absl::StrCat(Quoted(*item.name), ": its inline payload is not of the ",
                                            record.logical_bytes, " bytes that its record says"));
  }
  if (record.placement == Placement::kExternal) {
    return absl::FailedPreconditionError(absl::StrCat(Quoted(*item.name), " lies in an external tier"));
  }
  return Annotate(CheckLayout(record), Quoted(*item.name));
}

absl::Status Reader::AddPart(const ReadItem& item, uint64_t offset, uint64_t length, std::byte* memory, bool verify,
                             Plan& plan) const {
  const ObjectRecord& record = *item.record;
  const uint64_t block = record.block_bytes();
  Plan::Part part{.item = &item, .offset = offset, .length = length, .memory = memory};
  if (verify) {
    part.sums_first = plan.sums.size();
    part.sums_count = (length + block - 1) / block;
    plan.sums.resize(plan.sums.size() + part.sums_count);
  }
  const size_t part_index = plan.parts.size();
  const uint64_t end = offset + length;
  for (const FileRun& run : RunsOf(record, offset, length)) {
    DataFile* file = devices_->Find(run.file_id);
    if (file == nullptr || file->file == nullptr) {
      return MakeError(absl::StatusCode::kFailedPrecondition, ErrorKind::kDeviceMissing,
                       absl::StrCat(Quoted(*item.name), ": data file ", run.file_id, " is not there"));
    }
    const bool outside = run.file_offset < file->row.data_begin || run.file_offset + run.length > file->row.data_end;
    if (outside && !TS_MUTATE(read_outside_data_area)) {
      return absl::DataLossError(absl::StrCat(Quoted(*item.name), ": its record points to [", run.file_offset, ", ",
                                              run.file_offset + run.length, ") outside the data area of ",
                                              file->NameForMessages()));
    }
    // Inside a run, whole blocks get their sums from the engine. A block that began in another run, or goes on in the
    // next one, is hashed from memory when all of it is there.
    uint64_t at = run.object_offset;
    const uint64_t run_end = run.object_offset + run.length;
    const auto add = [&](uint64_t to, bool with_sums) {
      plan.segments.push_back({.file = file->file.get(),
                               .offset = run.file_offset + (at - run.object_offset),
                               .memory = memory + (at - offset),
                               .length = to - at,
                               .sum_block = static_cast<uint32_t>(block)});
      plan.owners.push_back(file);
      plan.part_of_segment.push_back(part_index);
      plan.sums_at.push_back(with_sums ? part.sums_first + (at - offset) / block : SIZE_MAX);
      at = to;
    };
    if (!verify) {
      add(run_end, false);
      continue;
    }
    if (at % block != 0) add(std::min(run_end, RoundUp(at, block)), false);
    const uint64_t whole_end = run_end == end ? run_end : run_end / block * block;
    if (at < whole_end && at % block == 0) add(whole_end, true);
    if (at < run_end) {
      plan.straddling.push_back({part_index, (at - offset) / block});
      add(run_end, false);
    }
  }
  plan.parts.push_back(part);
  return absl::OkStatus();
}

absl::Status Reader::AddItem(const ReadItem& item, bool verify, Plan& plan) const {
  const ObjectRecord& record = *item.record;
  const uint64_t grain = verify ? record.block_bytes() : kUnitBytes;
  const uint64_t begin = item.offset;
  const uint64_t end = item.offset + item.to.size();
  if (begin == end) return absl::OkStatus();
  // Example with grain 64 Ki, [70 Ki, 300 Ki): head block [64 Ki, 128 Ki), middle [128 Ki, 256 Ki), tail [256 Ki, 320
  // Ki).
  const uint64_t middle_begin = RoundUp(begin, grain);
  const uint64_t middle_end = end == record.stored_bytes ? end : end / grain * grain;
  const auto add_edge = [&](uint64_t block_begin) -> absl::Status {
    const uint64_t block_end = std::min(block_begin + grain, record.stored_bytes);
    std::byte* memory = plan.scratch.data() + plan.scratch_used;
    plan.scratch_used += RoundUp(grain, kUnitBytes);
    const uint64_t copy_begin = std::max(begin, block_begin);
    const uint64_t copy_end = std::min(end, block_end);
    plan.copies.push_back(
        {memory + (copy_begin - block_begin), item.to.data() + (copy_begin - begin), copy_end - copy_begin});
    return AddPart(item, block_begin, block_end - block_begin, memory, verify, plan);
  };
  if (begin % grain != 0) TS_RETURN_IF_ERROR(add_edge(begin / grain * grain));
  if (middle_begin < middle_end) {
    TS_RETURN_IF_ERROR(
        AddPart(item, middle_begin, middle_end - middle_begin, item.to.data() + (middle_begin - begin), verify, plan));
  }
  const bool tail_is_the_head = begin % grain != 0 && end <= middle_begin;
  if (middle_end < end && !tail_is_the_head) TS_RETURN_IF_ERROR(add_edge(end / grain * grain));
  return absl::OkStatus();
}

absl::Status Reader::RereadBlock(const ReadItem& item, uint64_t block, uint64_t expected, std::span<std::byte> to) {
  const ObjectRecord& record = *item.record;
  const uint64_t offset = block * record.block_bytes();
  TS_ASSIGN_OR_RETURN(MemoryPool::Piece scratch, devices_->pool()->Allocate(record.block_bytes()));
  const std::vector<FileRun> runs = RunsOf(record, offset, to.size());
  for (int attempt = 0; attempt < kRereadMax; ++attempt) {
    reread_blocks_.fetch_add(1, std::memory_order_relaxed);
    std::vector<Segment> segments;
    std::vector<DataFile*> owners;
    for (const FileRun& run : runs) {
      DataFile* file = devices_->Find(run.file_id);
      segments.push_back({.file = file->file.get(),
                          .offset = run.file_offset,
                          .memory = scratch.data() + (run.object_offset - offset),
                          .length = run.length});
      owners.push_back(file);
    }
    const BatchResult result = devices_->Transfer(IoKind::kRead, Priority::kForeground, std::move(segments), owners);
    if (!result.status.ok()) return Annotate(result.status, Quoted(*item.name));
    if (Hash128({scratch.data(), to.size()}).low == expected) {
      std::memcpy(to.data(), scratch.data(), to.size());
      return absl::OkStatus();
    }
  }
  corrupt_blocks_.fetch_add(1, std::memory_order_relaxed);
  if (!TS_MUTATE(hand_out_damaged_block)) std::memset(to.data(), 0, to.size());
  const CorruptionInfo info{
      .name = *item.name, .block = block, .file = devices_->Find(runs[0].file_id)->path, .offset = runs[0].file_offset};
  return MakeCorruption(info, absl::StrCat(Quoted(*item.name), ": block ", block, " (", to.size(), " bytes at offset ",
                                           info.offset, " of ", info.file, ") does not match its checksum"));
}

absl::Status Reader::ReadSums(uint64_t generation, uint64_t first, std::span<uint64_t> out) {
  absl::Status status = index_->ReadSums(generation, first, out);
  // In this order: they are kept before their rows go.
  if (absl::IsDataLoss(status) && parked_ != nullptr && parked_->ReadSums(generation, first, out)) {
    return absl::OkStatus();
  }
  return status;
}

absl::Status Reader::VerifyPlan(Plan& plan) {
  std::vector<uint64_t> rows;
  absl::Status first_error;
  for (const Plan::Part& part : plan.parts) {
    const ObjectRecord& record = *part.item->record;
    const uint64_t block = record.block_bytes();
    const uint64_t first = part.offset / block;
    std::span<const uint64_t> expected;
    if (record.sums.empty()) {
      rows.resize(part.sums_count);
      TS_RETURN_IF_ERROR(Annotate(ReadSums(record.generation, first, std::span<uint64_t>(rows)),
                                  absl::StrCat(Quoted(*part.item->name), ": checksums")));
      expected = rows;
    } else {
      if (first + part.sums_count > record.sums.size()) {
        return absl::DataLossError(absl::StrCat(Quoted(*part.item->name), ": its record holds ", record.sums.size(),
                                                " checksums, block ", first + part.sums_count - 1, " is wanted"));
      }
      expected = std::span(record.sums).subspan(first, part.sums_count);
    }
    for (size_t i = 0; i < part.sums_count; ++i) {
      if (plan.sums[part.sums_first + i].low == expected[i] || TS_MUTATE(skip_verification)) continue;
      const uint64_t begin = i * block;
      const absl::Status status =
          RereadBlock(*part.item, first + i, expected[i], {part.memory + begin, std::min(block, part.length - begin)});
      if (first_error.ok()) first_error = status;  // the other bad blocks are still wiped or mended
    }
  }
  return first_error;
}

absl::Status Reader::RunPlan(Plan& plan, bool verify, Priority priority) {
  for (size_t i = 0; i < plan.segments.size(); ++i) {
    if (plan.sums_at[i] != SIZE_MAX) plan.segments[i].sums = plan.sums.data() + plan.sums_at[i];
  }
  const BatchResult result = devices_->Transfer(IoKind::kRead, priority, std::move(plan.segments), plan.owners);
  if (!result.status.ok()) {
    const Plan::Part& part = plan.parts[plan.part_of_segment[result.failed_segment]];
    return Annotate(result.status, Quoted(*part.item->name));
  }
  for (const Plan::Straddling& straddling : plan.straddling) {
    const Plan::Part& part = plan.parts[straddling.part];
    const uint64_t block = part.item->record->block_bytes();
    const uint64_t begin = straddling.block_in_part * block;
    plan.sums[part.sums_first + straddling.block_in_part] =
        Hash128({part.memory + begin, std::min(block, part.length - begin)});
  }
  if (verify) TS_RETURN_IF_ERROR(VerifyPlan(plan));
  for (const Plan::Copy& copy : plan.copies) std::memcpy(copy.to, copy.from, copy.length);
  return absl::OkStatus();
}

absl::Status Reader::Read(std::span<const ReadItem> items, bool verify, Priority priority) {
  const auto scratch_for = [&](const ReadItem& item) -> uint64_t {
    const uint64_t grain = verify ? item.record->block_bytes() : kUnitBytes;
    const uint64_t end = item.offset + item.to.size();
    return grain *
           ((item.offset % grain != 0 ? 1 : 0) + (end % grain != 0 && end != item.record->stored_bytes ? 1 : 0));
  };
  for (const ReadItem& item : items) TS_RETURN_IF_ERROR(CheckItem(item));
  for (size_t next = 0; next < items.size();) {
    Plan plan;
    size_t end = next;
    uint64_t scratch = 0;
    while (end < items.size() && (end == next || scratch + scratch_for(items[end]) <= kScratchMax)) {
      scratch += scratch_for(items[end++]);
    }
    TS_ASSIGN_OR_RETURN(plan.scratch, devices_->pool()->Allocate(scratch));
    plan.segments.reserve(end - next);
    plan.parts.reserve(end - next);
    for (; next < end; ++next) {
      const ReadItem& item = items[next];
      if (item.record->placement == Placement::kInline) {
        std::copy_n(reinterpret_cast<const std::byte*>(item.payload->data()) + item.offset, item.to.size(),
                    item.to.begin());
      } else {
        TS_RETURN_IF_ERROR(AddItem(item, verify, plan));
      }
    }
    TS_RETURN_IF_ERROR(RunPlan(plan, verify, priority));
  }
  return absl::OkStatus();
}

}  // namespace tensorshelf
