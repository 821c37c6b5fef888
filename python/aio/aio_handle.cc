#include "python/aio/aio_handle.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cerrno>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"
#include "engine/plan.h"
#include "python/aio/staged_blocks.h"
#include "python/aio/validation.h"
#include "python/libtorch/tensor_io.h"

namespace tensorshelf {
namespace {

absl::Status CheckSettings(const AioSettings& settings) {
  const auto check = [](const char* name, int64_t value, int64_t most) {
    if (value >= 1 && value <= most) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(name, "=", value, " is not in 1..", most));
  };
  TS_RETURN_IF_ERROR(check("block_size", settings.block_size, int64_t{1} << 40));
  TS_RETURN_IF_ERROR(check("queue_depth", settings.queue_depth, int64_t{1} << 20));
  return check("intra_op_parallelism", settings.intra_op_parallelism, 256);
}

IoEngineOptions EngineOptionsOf(const AioSettings& settings) {
  IoEngineOptions options;
  options.worker_count = static_cast<size_t>(settings.intra_op_parallelism);
  options.queue_depth = static_cast<size_t>(settings.queue_depth);
  const uint64_t block = std::clamp<uint64_t>(settings.block_size, kUnitSize, kAioBlockBytesMax);
  options.io_size = block / kUnitSize * kUnitSize;
  options.small_size = std::min(options.small_size, options.io_size);
  return options;
}

// Where torch's tensor is not laid out as its file: a stand-in in memory that transfers well.
absl::StatusOr<at::Tensor> NewStandIn(MemoryPool& pool, const at::Tensor& tensor) {
  const std::vector<uint64_t> shape(tensor.sizes().begin(), tensor.sizes().end());
  return NewAlignedTensor(pool, static_cast<uint16_t>(tensor.scalar_type()), shape);
}

bool IsContiguousOnDevice(const at::Tensor& tensor) {
  return tensor.is_contiguous() && !tensor.is_conj() && !tensor.is_neg() && !tensor._is_zerotensor();
}

}  // namespace

AioHandle::AioHandle(const AioSettings& settings, AioProcess& process, StagingArena* arena,
                     std::unique_ptr<IoEngine> engine)
    : settings_(settings),
      process_(process),
      arena_(arena),
      files_({.on_notice = [&process](const std::string& message) { process.NoticeBuffered(message); }}),
      engine_(std::move(engine)) {}

absl::StatusOr<std::unique_ptr<AioHandle>> AioHandle::Create(const AioSettings& settings) {
  TS_RETURN_IF_ERROR(CheckSettings(settings));
  AioProcess& process = AioProcess::Get();
  TS_ASSIGN_OR_RETURN(StagingArena * arena, process.arena());
  TS_ASSIGN_OR_RETURN(auto engine, IoEngine::Create(&process.disk(), arena, EngineOptionsOf(settings)));
  return std::unique_ptr<AioHandle>(new AioHandle(settings, process, arena, std::move(engine)));
}

AioHandle::~AioHandle() {
  const Round round = TakeQueued();
  for (const auto& operation : round.mine) operation->Wait();
}

bool AioHandle::IsPinned(const at::Tensor& tensor) {
  if (!tensor.is_cpu() || !tensor.has_storage()) return false;
  if (tensor.numel() == 0) return tensor.is_pinned();
  if (tensor.is_contiguous() && AioProcess::Get().locked().Covers(tensor.const_data_ptr(), tensor.nbytes())) {
    return true;
  }
  return tensor.is_pinned();
}

absl::StatusOr<std::shared_ptr<Operation>> AioHandle::Open(const AioCall& call) {
  TS_RETURN_IF_ERROR(CheckStorable(call.tensor));
  if (call.offset < 0) return absl::InvalidArgumentError(absl::StrCat("file_offset ", call.offset, " is negative"));
  AioRequest request{.kind = call.kind,
                     .tensor = call.tensor,
                     .path = "",
                     .offset = static_cast<uint64_t>(call.offset),
                     .validate = call.validate};
  if (const int* fd = std::get_if<int>(&call.target)) {
    TS_ASSIGN_OR_RETURN(std::shared_ptr<File> file, files_.ForWriting(*fd));
    request.path = file->path();
    return std::make_shared<Operation>(std::move(request), std::move(file));
  }
  request.path = std::get<std::string>(call.target);
  if (call.kind == IoKind::kWrite) {
    TS_ASSIGN_OR_RETURN(ExternalFiles::OpenedFile opened, files_.ForWriting(request.path));
    return std::make_shared<Operation>(std::move(request), std::move(opened.file));
  }
  TS_ASSIGN_OR_RETURN(ExternalFiles::OpenedFile opened, files_.ForReading(request.path));
  if (request.offset > opened.size || request.size() > opened.size - request.offset) {
    return WithErrorNumber(
        absl::DataLossError(absl::StrCat("read of ", request.size(), " bytes at offset ", request.offset, " of ",
                                         request.path, ": the file has only ", opened.size, " bytes")),
        ENODATA);
  }
  return std::make_shared<Operation>(std::move(request), std::move(opened.file));
}

absl::StatusOr<std::shared_ptr<Operation>> AioHandle::Start(const AioCall& call) {
  TS_ASSIGN_OR_RETURN(std::shared_ptr<Operation> operation, Open(call));
  const at::Tensor& tensor = call.tensor;
  if (call.kind == IoKind::kWrite && IsPlainTensor(tensor) && !IsPinned(tensor)) {
    if (call.validate) AddValidation(*operation);
    WriteStaged(*engine_, *arena_, *operation, tensor);
    operation->End(absl::OkStatus());
    return operation;
  }
  TS_RETURN_IF_ERROR(call.kind == IoKind::kWrite ? PrepareWrite(*operation) : PrepareRead(*operation));
  SubmitWhole(*operation);
  return operation;
}

absl::StatusOr<std::shared_ptr<Operation>> AioHandle::StartAndStay(const AioCall& call) {
  TS_ASSIGN_OR_RETURN(std::shared_ptr<Operation> operation, Open(call));
  TS_RETURN_IF_ERROR(call.kind == IoKind::kWrite ? PrepareWrite(*operation) : PrepareRead(*operation));
  const bool whole = call.tensor.is_cpu();
  if (whole && operation->request().size() < engine_->options().small_size) {
    // Sparing the way to a worker and back, where one transfer does it.
    operation->End(engine_->Run(BatchOf(*operation)).status);
    return operation;
  }
  SubmitWhole(*operation);
  return operation;
}

// After this the operation's bytes are those of its tensor as it is now, or it is to be submitted whole.
absl::Status AioHandle::PrepareWrite(Operation& operation) {
  const at::Tensor& tensor = operation.request().tensor;
  if (!IsPlainTensor(tensor) && tensor.is_cpu()) {
    TS_ASSIGN_OR_RETURN(at::Tensor stand_in, NewStandIn(process_.pool(), tensor));
    CopyValues(tensor.resolve_conj().resolve_neg(), stand_in);
    operation.set_stand_in(std::move(stand_in));
  }
  if (operation.request().validate) AddValidation(operation);
  return absl::OkStatus();
}

absl::Status AioHandle::PrepareRead(Operation& operation) {
  const AioRequest& request = operation.request();
  if (!IsPlainTensor(request.tensor) && request.tensor.is_cpu()) {
    TS_ASSIGN_OR_RETURN(at::Tensor stand_in, NewStandIn(process_.pool(), request.tensor));
    operation.set_stand_in(stand_in);
    operation.Then([stand_in, &request] {
      CopyValues(stand_in, request.tensor);
      return absl::OkStatus();
    });
  }
  operation.Then([&request] {
    NoteWritten(request.tensor);
    return absl::OkStatus();
  });
  if (request.validate) AddValidation(operation);
  return absl::OkStatus();
}

// A write is compared with what its tensor holds now, a read with what it holds then.
void AioHandle::AddValidation(Operation& operation) {
  const auto sums_now = [&operation] { return SumsOf(BytesOf(PlainTensor(operation.request().tensor))); };
  std::vector<Sum128> sums;
  if (operation.request().kind == IoKind::kWrite) sums = sums_now();
  operation.Then([this, &request = operation.request(), sums_now, sums = std::move(sums)] {
    return CompareWithFile(files_, request.path, request.offset, request.size(),
                           request.kind == IoKind::kWrite ? sums : sums_now());
  });
}

Batch AioHandle::BatchOf(Operation& operation) const {
  const at::Tensor& tensor = operation.stand_in().defined() ? operation.stand_in() : operation.request().tensor;
  Batch batch;
  batch.kind = operation.request().kind;
  // A write does not change its memory.
  std::byte* memory =
      batch.kind == IoKind::kRead ? WritableBytesOf(tensor).data() : const_cast<std::byte*>(BytesOf(tensor).data());
  batch.segments.push_back({.file = &operation.file(),
                            .offset = operation.request().offset,
                            .memory = memory,
                            .length = operation.request().size(),
                            .edge = SegmentEdge::kExact});
  return batch;
}

// In one batch, or block by block where the bytes are not in memory of the CPU.
void AioHandle::SubmitWhole(Operation& operation) {
  const at::Tensor& tensor = operation.request().tensor;
  if (tensor.is_cpu()) {
    Batch batch = BatchOf(operation);
    batch.done = [&operation](const BatchResult& result) { operation.End(result.status); };
    engine_->Submit(std::move(batch));
    return;
  }
  if (operation.request().kind == IoKind::kWrite) {
    WriteStaged(*engine_, *arena_, operation,
                IsContiguousOnDevice(tensor) ? tensor : tensor.resolve_conj().resolve_neg().contiguous());
    operation.End(absl::OkStatus());
    return;
  }
  if (IsContiguousOnDevice(tensor)) {
    operation.End(ReadStaged(*engine_, *arena_, operation, tensor));
    return;
  }
  const at::Tensor contiguous = at::empty(tensor.sizes(), tensor.options());
  const absl::Status status = ReadStaged(*engine_, *arena_, operation, contiguous);
  if (status.ok()) CopyValues(contiguous, tensor);
  operation.End(status);
}

void AioHandle::Queue(std::shared_ptr<Operation> operation) {
  absl::MutexLock lock(&mutex_);
  queued_.push_back(std::move(operation));
}

AioHandle::Round AioHandle::TakeQueued() {
  absl::MutexLock lock(&mutex_);
  Round round{.mine = std::exchange(queued_, {}), .others = taken_};
  taken_.insert(taken_.end(), round.mine.begin(), round.mine.end());
  return round;
}

void AioHandle::Concluded(const Round& round) {
  const std::unordered_set<std::shared_ptr<Operation>> over(round.mine.begin(), round.mine.end());
  absl::MutexLock lock(&mutex_);
  std::erase_if(taken_, [&](const auto& operation) { return over.contains(operation); });
}

}  // namespace tensorshelf
