#include "tools/cli/import_copy.h"

#include <memory>
#include <vector>

#include "engine/foundation/status_macros.h"
#include "engine/io_engine.h"
#include "engine/memory.h"
#include "tools/cli/pipeline.h"

namespace tensorshelf::cli {
namespace {

constexpr size_t kWindowItemsMax = 16384;
constexpr uint64_t kStagingBytes = uint64_t{16} << 20;

// Tensors that lie together in one file and are read with one transfer list.
struct Window {
  PlannedFile* file = nullptr;
  std::span<const PlannedTensor> tensors;
  uint64_t begin = 0, end = 0;  // in the file, bytes
};

std::vector<Window> CutIntoWindows(std::span<PlannedFile> files, uint64_t window_bytes) {
  std::vector<Window> windows;
  for (PlannedFile& file : files) {
    const std::span<const PlannedTensor> tensors = file.tensors;
    for (size_t first = 0; first < tensors.size();) {
      size_t count = 1;
      const uint64_t begin = tensors[first].offset;
      uint64_t end = begin + tensors[first].length;
      while (first + count < tensors.size() && count < kWindowItemsMax) {
        const PlannedTensor& next = tensors[first + count];
        if (next.offset + next.length - begin > window_bytes) break;
        end = next.offset + next.length;
        ++count;
      }
      windows.push_back({&file, tensors.subspan(first, count), begin, end});
      first += count;
    }
  }
  return windows;
}

class FileReader {
 public:
  static absl::StatusOr<FileReader> Create(Disk& disk) {
    FileReader reader;
    IoEngineOptions options;
    StagingArena::Options staging;
    staging.size = kStagingBytes;
    staging.buffer_size = options.io_size;
    staging.page_locked = false;
    TS_ASSIGN_OR_RETURN(reader.arena_, StagingArena::Create(staging));
    TS_ASSIGN_OR_RETURN(reader.engine_, IoEngine::Create(&disk, reader.arena_.get(), options));
    return reader;
  }

  absl::Status Read(const Window& window, std::byte* memory) {
    Batch batch;
    Segment& segment = batch.segments.emplace_back();
    segment.file = window.file->file.get();
    segment.offset = window.begin;
    segment.memory = memory;
    segment.length = window.end - window.begin;
    segment.edge = SegmentEdge::kExact;
    return engine_->Run(std::move(batch)).status;
  }

 private:
  FileReader() = default;
  std::unique_ptr<StagingArena> arena_;  // before the engine, which it outlives
  std::unique_ptr<IoEngine> engine_;
};

std::vector<PutItem> ItemsOf(const Window& window, const std::byte* memory, const ImportCopyOptions& options) {
  std::vector<PutItem> items;
  items.reserve(window.tensors.size());
  for (const PlannedTensor& tensor : window.tensors) {
    PutItem& item = items.emplace_back();
    item.name = tensor.name;
    item.kind = tensor.kind;
    item.dtype = tensor.dtype;
    item.shape = tensor.shape;
    item.bytes = {memory + (tensor.offset - window.begin), tensor.length};
    item.metadata = tensor.metadata;
    if (!options.replace) item.precondition.kind = Precondition::Kind::kAbsent;
    item.skip_unchanged = options.skip_unchanged;
  }
  return items;
}

}  // namespace

absl::Status CopyIntoTransaction(Disk& disk, Store& store, std::span<PlannedFile> files,
                                 const ImportCopyOptions& options, Transaction& transaction) {
  const std::vector<Window> windows = CutIntoWindows(files, options.window_bytes);
  TS_ASSIGN_OR_RETURN(FileReader reader, FileReader::Create(disk));
  MemoryPool::Piece pieces[kSlotCount];
  // The file's place within a 4 KiB unit is kept in memory, so that the aligned middle of a read needs no copy.
  const auto memory_of = [&](const Window& window, size_t slot) {
    return pieces[slot].data() + window.begin % kUnitBytes;
  };
  uint64_t done = 0;
  const auto fill = [&](size_t step, size_t slot) -> absl::Status {
    const Window& window = windows[step];
    const uint64_t needed = window.begin % kUnitBytes + (window.end - window.begin);
    if (pieces[slot].size() < needed) {
      pieces[slot] = {};
      TS_ASSIGN_OR_RETURN(pieces[slot], store.memory_pool()->Allocate(needed));
    }
    return reader.Read(window, memory_of(window, slot));
  };
  const auto drain = [&](size_t step, size_t slot) -> absl::Status {
    const Window& window = windows[step];
    TS_RETURN_IF_ERROR(transaction.Put(ItemsOf(window, memory_of(window, slot), options)));
    done += window.end - window.begin;
    if (options.progress) options.progress(done);
    return absl::OkStatus();
  };
  return RunPipeline(windows.size(), fill, drain);
}

}  // namespace tensorshelf::cli
