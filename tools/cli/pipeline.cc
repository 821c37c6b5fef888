#include "tools/cli/pipeline.h"

#include <thread>

#include "engine/foundation/status_macros.h"

namespace tensorshelf::cli {

absl::Status RunPipeline(size_t count, const std::function<absl::Status(size_t step, size_t slot)>& fill,
                         const std::function<absl::Status(size_t step, size_t slot)>& drain) {
  if (count == 0) return absl::OkStatus();
  TS_RETURN_IF_ERROR(fill(0, 0));
  for (size_t step = 0; step + 1 < count; ++step) {
    absl::Status filled;
    std::thread filler([&] { filled = fill(step + 1, (step + 1) % kSlotCount); });
    absl::Status drained = drain(step, step % kSlotCount);
    filler.join();
    TS_RETURN_IF_ERROR(drained);
    TS_RETURN_IF_ERROR(filled);
  }
  return drain(count - 1, (count - 1) % kSlotCount);
}

}  // namespace tensorshelf::cli
