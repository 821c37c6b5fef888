#include "python/libtorch/slice_read.h"

#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

std::vector<int64_t> SignedShape(std::span<const uint64_t> shape) { return {shape.begin(), shape.end()}; }

// The part of what was read that the plan keeps, as a view in the shape of the stored tensor's dimensions.
at::Tensor Kept(const at::Tensor& read, const SlicePlan& plan) {
  at::Tensor view = read;
  for (size_t i = 0; i < plan.keep.size(); ++i) {
    const SlicePlan::Keep& keep = plan.keep[i];
    const int64_t end = keep.count == 0 ? keep.start : keep.start + (keep.count - 1) * keep.step + 1;
    view = view.slice(static_cast<int64_t>(i), keep.start, end, keep.step);
  }
  return view;
}

bool ReadsDirectly(const SliceRequest& request) {
  return request.plan.keeps_all && request.out.defined() && IsPlainTensor(request.out);
}

// What the runs of the request are read into.
absl::StatusOr<at::Tensor> TargetOf(const SliceRequest& request, ResultTensors& results) {
  if (ReadsDirectly(request)) return request.out;
  return results.New(request.object->record().dtype, request.plan.read_shape);
}

absl::StatusOr<at::Tensor> Finish(const SliceRequest& request, const at::Tensor& read, MemoryPool& pool) {
  if (ReadsDirectly(request)) return request.out;
  if (request.plan.keeps_all && !request.out.defined()) return read.view(SignedShape(request.plan.result_shape));
  const at::Tensor kept = Kept(read, request.plan);
  ResultTensors results(pool);
  TS_ASSIGN_OR_RETURN(at::Tensor result, results.New(request.object->record().dtype, request.plan.result_shape));
  CopyValues(kept, result.view(kept.sizes()));
  if (!request.out.defined()) return result;
  // A strided `out` cannot always be viewed in the stored dimensions, so it is filled from the packed part.
  CopyValues(result, request.out);
  return request.out;
}

}  // namespace

absl::StatusOr<std::vector<at::Tensor>> ReadSlices(MemoryPool& pool, std::span<const SliceRequest> requests,
                                                   const ReadFunction& read) {
  ResultTensors results(pool);
  std::vector<at::Tensor> targets;
  std::vector<ReadRequest> reads;
  for (const SliceRequest& request : requests) {
    if (request.out.defined()) {
      TS_RETURN_IF_ERROR(CheckOut(*request.object, request.plan.result_shape, request.out));
    }
  }
  for (const SliceRequest& request : requests) {
    TS_ASSIGN_OR_RETURN(const at::Tensor target, TargetOf(request, results));
    std::byte* to = WritableBytesOf(target).data();
    for (const ByteRun& run : request.plan.runs) {
      reads.push_back({.object = request.object, .offset = run.offset, .to = {to, run.length}});
      to += run.length;
    }
    targets.push_back(target);
  }
  const std::shared_ptr<void> faults = results.FaultInBehind();
  const absl::Status status = read(reads);
  for (size_t i = 0; i < requests.size(); ++i) {
    if (ReadsDirectly(requests[i])) NoteWritten(requests[i].out);
  }
  TS_RETURN_IF_ERROR(status);
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < requests.size(); ++i) {
    TS_ASSIGN_OR_RETURN(at::Tensor part, Finish(requests[i], targets[i], pool));
    parts.push_back(std::move(part));
  }
  return parts;
}

}  // namespace tensorshelf
