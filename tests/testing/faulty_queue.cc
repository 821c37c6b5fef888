#include <algorithm>
#include <cerrno>
#include <list>
#include <optional>
#include <utility>
#include <vector>

#include "engine/foundation/status_macros.h"
#include "tests/testing/fault_script.h"

namespace tensorshelf::testing {
namespace {

// One operation between Submit and Reap: either with the base queue as `inner`, or finished and waiting in `ready_`.
struct Pending {
  IoOp* outer = nullptr;
  IoOp inner;
  std::optional<Fault> fault;
  int64_t result = 0;
  uint64_t wait_count = 0;  // kDelay: how many others go first
};

bool Hits(const std::optional<Fault>& fault, Effect effect) { return fault.has_value() && fault->effect == effect; }

class FaultyQueue : public IoQueue {
 public:
  FaultyQueue(std::shared_ptr<FaultScript> script, std::unique_ptr<IoQueue> base)
      : script_(std::move(script)), base_(std::move(base)) {}
  ~FaultyQueue() override { base_.reset(); }  // waits; the inner operations must live until then

  size_t depth() const override { return base_->depth(); }
  size_t in_flight() const override { return pending_.size(); }
  int Submit(std::span<IoOp* const> ops) override;
  int Reap(size_t at_least, std::span<IoCompletion> completions, int64_t timeout_us) override;

 private:
  enum class Taken { kYes, kFull, kError };

  // Takes one operation; *error is a negative errno of the base queue.
  Taken Take(IoOp* op, int* error);
  int Collect(size_t at_least, int64_t timeout_us);
  std::list<Pending*>::iterator NextReady();
  int64_t ResultOf(Pending& pending, int64_t base_result);

  const std::shared_ptr<FaultScript> script_;
  std::unique_ptr<IoQueue> base_;
  std::list<Pending> pending_;  // all that is in flight; addresses stay
  std::list<Pending*> ready_;   // of those, what Reap may hand out
};

FaultyQueue::Taken FaultyQueue::Take(IoOp* op, int* error) {
  if (pending_.size() == depth()) return Taken::kFull;
  pending_.push_back({.outer = op,
                      .inner = *op,
                      .fault = script_->Enter(Call::kCompletion, op->file->path(), op->offset, op->length)});
  Pending& pending = pending_.back();
  pending.inner.file = BaseOf(op->file);
  pending.inner.owner = &pending;
  if (Hits(pending.fault, Effect::kMisdirect)) pending.inner.offset += pending.fault->amount;
  if (Hits(pending.fault, Effect::kDelay)) pending.wait_count = pending.fault->amount;
  if (Hits(pending.fault, Effect::kFail)) pending.result = -pending.fault->error_number;
  if (Hits(pending.fault, Effect::kLose)) pending.result = op->length;
  bool reaches_base = !Hits(pending.fault, Effect::kFail) && !Hits(pending.fault, Effect::kLose);
  if (Hits(pending.fault, Effect::kShorten)) {
    const IoAlignment& alignment = op->file->alignment();
    uint64_t length = std::min<uint64_t>(op->length, pending.fault->amount);
    if (alignment.direct) length -= length % alignment.offset;
    pending.inner.length = static_cast<uint32_t>(length);
    reaches_base = length != 0;
  }
  if (!reaches_base) {
    ready_.push_back(&pending);
    return Taken::kYes;
  }
  IoOp* inner = &pending.inner;
  const int result = base_->Submit({&inner, 1});
  if (result == 1) return Taken::kYes;
  pending_.pop_back();
  *error = result;
  return result < 0 ? Taken::kError : Taken::kFull;
}

int FaultyQueue::Submit(std::span<IoOp* const> ops) {
  const std::optional<Fault> fault = script_->Enter(Call::kSubmit, "");
  size_t take_max = ops.size();
  if (Hits(fault, Effect::kShorten)) {
    take_max = std::min<size_t>(take_max, fault->amount);
  } else if (fault.has_value()) {
    return -fault->error_number;
  }
  int count = 0;
  for (IoOp* op : ops.first(take_max)) {
    int error = 0;
    const Taken taken = Take(op, &error);
    if (taken == Taken::kYes) {
      ++count;
    } else if (count == 0) {
      return taken == Taken::kError ? error : -EAGAIN;
    } else {
      break;
    }
  }
  return count;
}

int64_t FaultyQueue::ResultOf(Pending& pending, int64_t base_result) {
  if (Hits(pending.fault, Effect::kFailAfter)) return -pending.fault->error_number;
  if (Hits(pending.fault, Effect::kFlipBit) && pending.inner.kind == IoKind::kRead && base_result > 0) {
    const uint64_t bit = pending.fault->amount % (static_cast<uint64_t>(base_result) * 8);
    pending.inner.memory[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  if (Hits(pending.fault, Effect::kStale) && pending.inner.kind == IoKind::kRead && base_result > 0) {
    script_->MakeStale(pending.outer->file->path(), pending.outer->offset,
                       {pending.inner.memory, static_cast<size_t>(base_result)});
  }
  return base_result;
}

// Brings finished operations of the base queue into `ready_`: at least `at_least`, and all that are there.
int FaultyQueue::Collect(size_t at_least, int64_t timeout_us) {
  if (base_->in_flight() == 0) return 0;
  std::vector<IoCompletion> completions(base_->in_flight());
  const int count = base_->Reap(std::min(at_least, completions.size()), completions, timeout_us);
  for (int i = 0; i < count; ++i) {
    auto* pending = static_cast<Pending*>(completions[i].op->owner);
    pending->result = ResultOf(*pending, completions[i].result);
    ready_.push_back(pending);
  }
  return count;
}

// Which finished operation goes out next: one that nothing delays, in order or by the script's choice.
std::list<Pending*>::iterator FaultyQueue::NextReady() {
  std::vector<std::list<Pending*>::iterator> free;
  for (auto at = ready_.begin(); at != ready_.end(); ++at) {
    if ((*at)->wait_count == 0) free.push_back(at);
  }
  if (free.empty()) return base_->in_flight() == 0 ? ready_.begin() : ready_.end();
  return free[script_->Choose(free.size()).value_or(0)];
}

int FaultyQueue::Reap(size_t at_least, std::span<IoCompletion> completions, int64_t timeout_us) {
  const std::optional<Fault> fault = script_->Enter(Call::kReap, "");
  if (fault.has_value()) return -fault->error_number;
  at_least = std::min({at_least, completions.size(), pending_.size()});
  const bool as_few_as_possible = script_->Choose(1).has_value();
  const size_t at_most =
      as_few_as_possible ? std::min(std::max<size_t>(at_least, 1), completions.size()) : completions.size();
  size_t count = 0;
  bool timed_out = false;
  while (count < at_most) {
    // Looks without waiting first, so that as many as possible are there to choose among.
    int collected = Collect(0, 0);
    auto next = NextReady();
    if (next == ready_.end() && collected >= 0 && count < at_least && !timed_out) {
      collected = Collect(1, timeout_us);
      timed_out = collected == 0;
      if (collected > 0) continue;
    }
    if (collected < 0 && count == 0) return collected;
    if (next == ready_.end()) break;

    Pending* pending = *next;
    completions[count++] = {pending->outer, pending->result};
    ready_.erase(next);
    pending_.remove_if([&](const Pending& other) { return &other == pending; });
    for (Pending& other : pending_) other.wait_count -= other.wait_count > 0 ? 1 : 0;
  }
  return static_cast<int>(count);
}

}  // namespace

std::unique_ptr<IoQueue> NewFaultyQueue(std::shared_ptr<FaultScript> script, std::unique_ptr<IoQueue> base) {
  return std::make_unique<FaultyQueue>(std::move(script), std::move(base));
}

}  // namespace tensorshelf::testing
