#include "store/move_run.h"

#include <memory>
#include <utility>

#include "engine/foundation/status_macros.h"
#include "store/store_core.h"

namespace tensorshelf {

MoveRun StoreCore::NewMoveRun(uint64_t rate_bytes_per_s, std::function<bool()> stop) {
  MoveRun moves;
  moves.stop = [this, asked = std::move(stop)] { return closing_.load() || (asked && asked()); };
  moves.scan = [this, stop = moves.stop](const std::function<void(const ObjectCursor&)>& visit) -> absl::Status {
    absl::ReaderMutexLock lock(&lifecycle_);
    TS_RETURN_IF_ERROR(CheckUsable());
    const std::unique_ptr<ObjectCursor> cursor = index_->NewCursor("", "");
    while (!stop()) {
      TS_ASSIGN_OR_RETURN(const bool there, cursor->Next());
      if (!there) break;
      visit(*cursor);
    }
    return absl::OkStatus();
  };
  moves.find = [this](const std::string& name, uint64_t generation,
                      const std::function<absl::Status(Object object)>& plan) -> absl::StatusOr<bool> {
    absl::ReaderMutexLock lock(&lifecycle_);
    TS_RETURN_IF_ERROR(CheckUsable());
    absl::StatusOr<Object> object = FindLeased(name, nullptr);
    if (absl::IsNotFound(object.status())) return false;
    if (!object.ok()) return object.status();
    if (object->record().generation != generation) return false;
    TS_RETURN_IF_ERROR(plan(*std::move(object)));
    return true;
  };
  auto throttle = std::make_shared<Throttle>(rate_bytes_per_s, moves.stop);
  moves.run = [this, throttle](std::span<PlannedMove> planned) -> absl::Status {
    absl::ReaderMutexLock lock(&lifecycle_);
    TS_RETURN_IF_ERROR(CheckWritable());
    TS_RETURN_IF_ERROR(
        mover_->Run(planned, Priority::kBackground, [&](uint64_t bytes) { return throttle->Pass(bytes); }));
    parked_->Reclaim();
    return absl::OkStatus();
  };
  return moves;
}

}  // namespace tensorshelf
