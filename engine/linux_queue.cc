#include "engine/linux_queue.h"

#include <fcntl.h>
#include <libaio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/foundation/status_macros.h"

namespace tensorshelf {
namespace {

class LinuxQueue : public IoQueue {
 public:
  LinuxQueue(io_context_t context, size_t depth)
      : context_(context), process_(::getpid()), control_blocks_(depth), events_(depth) {
    offered_.reserve(depth);
    free_.reserve(depth);
    for (iocb& control_block : control_blocks_) free_.push_back(&control_block);
  }

  ~LinuxQueue() override;

  size_t depth() const override { return control_blocks_.size(); }
  size_t in_flight() const override { return control_blocks_.size() - free_.size(); }
  int Submit(std::span<IoOp* const> ops) override;
  int Reap(size_t at_least, std::span<IoCompletion> completions, int64_t timeout_us) override;

 private:
  io_context_t context_;
  const pid_t process_;
  std::vector<iocb> control_blocks_;  // never moves: the kernel gives their addresses back
  std::vector<iocb*> free_;
  std::vector<iocb*> offered_;    // of the Submit that runs
  std::vector<io_event> events_;  // of the Reap that runs
};

LinuxQueue::~LinuxQueue() {
  // A forked child has a copy of this object but not the context, whose number means nothing there.
  if (::getpid() != process_) return;
  while (in_flight() > 0) {
    const int count = ::io_getevents(context_, 1, static_cast<long>(in_flight()), events_.data(), nullptr);
    if (count == -EINTR) continue;
    if (count < 0) break;
    for (int i = 0; i < count; ++i) free_.push_back(events_[i].obj);
  }
  // Would also wait by itself. The one error is EINVAL for a context that is gone: nothing is left to wait for then.
  ::io_destroy(context_);
}

int LinuxQueue::Submit(std::span<IoOp* const> ops) {
  if (ops.empty()) return 0;
  const size_t count = std::min(ops.size(), free_.size());
  if (count == 0) return -EAGAIN;
  offered_.clear();
  for (size_t i = 0; i < count; ++i) {
    IoOp* op = ops[i];
    iocb* control_block = free_.back();
    free_.pop_back();
    const auto offset = static_cast<long long>(op->offset);
    if (op->kind == IoKind::kRead) {
      ::io_prep_pread(control_block, op->file->direct_fd(), op->memory, op->length, offset);
    } else {
      ::io_prep_pwrite(control_block, op->file->direct_fd(), op->memory, op->length, offset);
    }
    control_block->data = op;
    offered_.push_back(control_block);
  }
  const int result = ::io_submit(context_, static_cast<long>(count), offered_.data());
  for (size_t i = count; i-- > static_cast<size_t>(std::max(result, 0));) free_.push_back(offered_[i]);
  return result;
}

int LinuxQueue::Reap(size_t at_least, std::span<IoCompletion> completions, int64_t timeout_us) {
  const size_t at_most = std::min(completions.size(), in_flight());
  if (at_most == 0) return 0;
  timespec timeout{.tv_sec = timeout_us / 1000000, .tv_nsec = timeout_us % 1000000 * 1000};
  // More than is in flight would be waited for in vain.
  const int count = ::io_getevents(context_, static_cast<long>(std::min(at_least, at_most)), static_cast<long>(at_most),
                                   events_.data(), timeout_us < 0 ? nullptr : &timeout);
  for (int i = 0; i < count; ++i) {
    // `res` is unsigned in libaio's header; the kernel stores a signed value.
    completions[i] = {static_cast<IoOp*>(events_[i].data), static_cast<int64_t>(events_[i].res)};
    free_.push_back(events_[i].obj);
  }
  return count;
}

// What /proc/sys/fs says, for a message.
std::string SystemNumber(const std::string& name) {
  const int fd = ::open(absl::StrCat("/proc/sys/fs/", name).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "unknown";
  char line[32];
  const ssize_t length = ::read(fd, line, sizeof line);
  ::close(fd);
  std::string number(line, length < 0 ? 0 : static_cast<size_t>(length));
  number.resize(std::min(number.size(), number.find('\n')));
  return number;
}

}  // namespace

absl::StatusOr<std::unique_ptr<IoQueue>> NewLinuxQueue(size_t depth) {
  if (depth == 0) return absl::InvalidArgumentError("a queue needs a depth of at least 1");
  io_context_t context = nullptr;
  const int result = ::io_setup(static_cast<int>(std::min<size_t>(depth, 1 << 20)), &context);
  if (result == -EAGAIN) {
    return WithErrorNumber(
        absl::ResourceExhaustedError(absl::StrCat("io_setup for ", depth, " transfers: EAGAIN, fs.aio-max-nr is ",
                                                  SystemNumber("aio-max-nr"), ", of which ", SystemNumber("aio-nr"),
                                                  " are in use (all processes together)")),
        EAGAIN);
  }
  if (result < 0) return IoError(-result, absl::StrCat("io_setup for ", depth, " transfers"));
  return std::make_unique<LinuxQueue>(context, depth);
}

}  // namespace tensorshelf
