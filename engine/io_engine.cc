#include "engine/io_engine.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "engine/batch_state.h"
#include "engine/block_steps.h"
#include "engine/engine_context.h"
#include "engine/file_syncer.h"
#include "engine/foundation/status_macros.h"
#include "engine/worker.h"
#include "engine/worker_thread.h"

namespace tensorshelf {

struct IoEngine::State {
  State(Disk* disk, StagingArena* arena, const IoEngineOptions& options) : context(disk, arena, options) {}

  PlanOptions plan_options() const {
    return {.io_size = context.options.io_size, .small_size = context.options.small_size};
  }

  EngineContext context;
  FileSyncer syncer;
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<std::thread> threads;
};

namespace {

// More than any system allows by default: that limit, fs.aio-max-nr, is the kernel's to tell.
constexpr size_t kQueueDepthMax = size_t{1} << 20;

absl::Status CheckOptions(const IoEngineOptions& options, const StagingArena& arena) {
  if (options.worker_count < 1 || options.worker_count > 256) {
    return absl::InvalidArgumentError(absl::StrCat("worker_count ", options.worker_count, " is not in 1..256"));
  }
  if (options.queue_depth < 1 || options.queue_depth > kQueueDepthMax) {
    return absl::InvalidArgumentError(
        absl::StrCat("queue_depth ", options.queue_depth, " is not in 1..", kQueueDepthMax));
  }
  if (options.io_size < kUnitSize || options.io_size % kUnitSize != 0 || options.io_size > uint64_t{1} << 30) {
    return absl::InvalidArgumentError(
        absl::StrCat("io_size ", options.io_size, " is not a multiple of 4096 between 4096 and 1073741824"));
  }
  if (options.small_size > options.io_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("small_size ", options.small_size, " is larger than io_size ", options.io_size));
  }
  if (arena.buffer_size() < options.io_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("staging buffers of ", arena.buffer_size(), " bytes, io_size is ", options.io_size));
  }
  return absl::OkStatus();
}

BatchResult CheckSegments(const std::vector<Segment>& segments) {
  for (size_t i = 0; i < segments.size(); ++i) {
    if (absl::Status status = CheckSegment(segments[i]); !status.ok()) return {.status = status, .failed_segment = i};
  }
  return {};
}

// Moves a batch that is one small block in this thread, which spares the hand-over to a worker and back. False when
// that has to wait for a staging buffer; nothing was done then.
bool MoveHere(EngineContext& context, BatchState& state) {
  const IoBlock& block = state.plan().blocks.front();
  std::byte* buffer = nullptr;
  if (block.route == BlockRoute::kStaged) {
    buffer = context.arena->TryTake();
    if (buffer == nullptr) return false;
  }
  MoveBlockHere(context, state, block, buffer);
  if (buffer != nullptr) context.arena->GiveBack(buffer);
  state.FinishBlocks(1);
  return true;
}

}  // namespace

IoEngine::IoEngine(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<IoEngine>> IoEngine::Create(Disk* disk, StagingArena* arena,
                                                           const IoEngineOptions& options) {
  TS_RETURN_IF_ERROR(CheckOptions(options, *arena));
  // Its destructor ends whatever has been started when a later step fails.
  std::unique_ptr<IoEngine> engine(new IoEngine(std::make_unique<State>(disk, arena, options)));
  State& state = *engine->state_;
  for (size_t i = 0; i < options.worker_count; ++i) {
    TS_ASSIGN_OR_RETURN(auto queue, disk->NewQueue(options.queue_depth));
    state.workers.push_back(std::make_unique<Worker>(&state.context, std::move(queue)));
  }
  for (const auto& worker : state.workers) {
    TS_ASSIGN_OR_RETURN(auto thread, StartThread("shelf-io", [&worker = *worker] { worker.Run(); }));
    state.threads.push_back(std::move(thread));
  }
  return engine;
}

IoEngine::~IoEngine() {
  state_->context.work.Close();
  for (std::thread& thread : state_->threads) thread.join();
}

void IoEngine::Submit(Batch batch) {
  const BatchResult checked = CheckSegments(batch.segments);
  if (!checked.status.ok()) {
    batch.done(checked);
    return;
  }
  auto state = std::make_shared<BatchState>(std::move(batch), state_->plan_options());
  if (state_->context.tracing()) state->set_queued_ns(SteadyNanoseconds());
  if (state->plan().blocks.empty()) {
    state->FinishBlocks(0);
    return;
  }
  state_->context.work.Add(std::move(state));
}

BatchResult IoEngine::Run(Batch batch) {
  BatchResult result = CheckSegments(batch.segments);
  if (!result.status.ok()) return result;
  absl::Notification finished;
  batch.done = [&](const BatchResult& outcome) {
    result = outcome;
    finished.Notify();
  };
  auto state = std::make_shared<BatchState>(std::move(batch), state_->plan_options());
  if (state_->context.tracing()) state->set_queued_ns(SteadyNanoseconds());
  const IoPlan& plan = state->plan();
  if (plan.blocks.empty()) return result;
  const bool one_small = plan.blocks.size() == 1 && plan.small_count == 1;
  if (!one_small || !MoveHere(state_->context, *state)) state_->context.work.Add(std::move(state));
  finished.WaitForNotification();
  return result;
}

std::vector<absl::Status> IoEngine::Sync(const std::vector<File*>& files) { return state_->syncer.Sync(files); }

void IoEngine::LimitBuffers(size_t buffer_count_max) { state_->context.buffers.SetLimit(buffer_count_max); }

IoEngineStats IoEngine::stats() const {
  IoEngineStats stats = state_->context.counters.Read();
  stats.waiting_blocks = state_->context.work.backlog();
  return stats;
}

const IoEngineOptions& IoEngine::options() const { return state_->context.options; }

}  // namespace tensorshelf
