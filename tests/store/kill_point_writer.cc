// Runs KillScript on a shelf and kills itself at one point of it: kill_point_writer <shelf> script|recover <point>
// <nth>. A point is a phase and a call, "put/sync"; it dies before the nth such call. "recover" opens and closes a
// shelf that is there instead, all of it in the phase "recover". On standard output: "?3" before step 3 and "!3" when
// it was acknowledged; with "-" as the point it does not die and ends with one line "point count" for each point it
// met.

#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "engine/linux_disk.h"
#include "store/grow_store.h"
#include "store/structure_check.h"
#include "tests/store/kill_script.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/faulty_disk.h"

namespace tensorshelf {
namespace {

using testing::Call;

bool Say(const std::string& line) {
  return ::write(STDOUT_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size());
}

const char* NameOf(Call call) {
  constexpr const char* kNames[] = {"open",     "size",           "pread",     "pwrite", "sync",
                                    "allocate", "truncate",       "new-queue", "submit", "reap",
                                    "transfer", "stat",           "list",      "mkdir",  "rename",
                                    "remove",   "sync-directory", "space",     "lock",   "lock-holder"};
  static_assert(std::size(kNames) == testing::kCallCount);
  return kNames[static_cast<size_t>(call)];
}

const char* NameOf(IndexFileOp::Kind kind) {
  switch (kind) {
    case IndexFileOp::Kind::kCreate:
      return "index-create";
    case IndexFileOp::Kind::kAppend:
      return "index-append";
    case IndexFileOp::Kind::kSync:
      return "index-sync";
    case IndexFileOp::Kind::kRename:
      return "index-rename";
    case IndexFileOp::Kind::kDelete:
      return "index-delete";
    case IndexFileOp::Kind::kSyncDirectory:
      return "index-sync-directory";
    default:
      return "";
  }
}

// Thread-safe: calls come from the threads of the store and of RocksDB.
class KillPoints : public IndexFileObserver {
 public:
  KillPoints(std::string point, uint64_t nth) : point_(std::move(point)), nth_(nth) {}

  void set_phase(const std::string& phase) {
    absl::MutexLock lock(&mutex_);
    phase_ = phase;
  }
  void Reach(const std::string& call) {
    absl::MutexLock lock(&mutex_);
    const std::string name = absl::StrCat(phase_, "/", call);
    if (++counts_[name] == nth_ && name == point_) ::kill(::getpid(), SIGKILL);
  }
  absl::Status Before(const IndexFileOp& op) override {
    const std::string call = NameOf(op.kind);
    if (!call.empty()) Reach(call);
    return absl::OkStatus();
  }
  std::string Counts() const {
    absl::MutexLock lock(&mutex_);
    std::string text;
    for (const auto& [name, count] : counts_) absl::StrAppend(&text, name, " ", count, "\n");
    return text;
  }

 private:
  const std::string point_;
  const uint64_t nth_;
  mutable absl::Mutex mutex_;
  std::string phase_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, uint64_t> counts_ ABSL_GUARDED_BY(mutex_);
};

class Writer {
 public:
  Writer(std::string shelf, KillPoints* points) : shelf_(std::move(shelf)), points_(points) {
    disk_.OnCall([points](Call call, const std::string&) {
      // What only looks leaves nothing new behind.
      if (call == Call::kPRead || call == Call::kStat || call == Call::kSize || call == Call::kSpace ||
          call == Call::kReap || call == Call::kLockHolder || call == Call::kNewQueue) {
        return;
      }
      points->Reach(NameOf(call));
    });
  }

  absl::Status Open() {
    StoreOptions options;
    options.disk = &disk_;
    options.index.observer = points_;
    options.staging_bytes = 2 << 20;
    options.page_locked = false;
    options.background_fill = false;
    options.idle_witness_ms = 100000;
    options.io.worker_count = 1;
    options.index.memtable_bytes = 64 << 10;
    auto opened = Store::Open(shelf_, options);
    if (opened.ok()) store_ = *std::move(opened);
    return opened.status();
  }
  absl::Status Close() {
    const absl::Status status = store_->Close();
    store_.reset();
    return status;
  }

  absl::Status Run(const KillStep& step) {
    if (step.op.has_value()) return Apply(*store_, *step.op);
    if (step.phase == "create") {
      CreateOptions options;
      options.capacity = kCapacityMin;
      options.prefill = Prefill::kNone;
      options.disk = &disk_;
      options.observer = points_;
      return Store::Create(shelf_, options);
    }
    if (step.phase == "open") return Open();
    if (step.phase == "close") return Close();
    if (step.phase == "grow") return store_->Grow({.capacity = kCapacityMin}).status();
    if (step.phase == "damage") {
      FlipByte(shelf_ + "/00000001.tsd", 20);
      return absl::OkStatus();
    }
    return CheckStructure(shelf_, {.repair = true, .disk = &disk_}).status();
  }

 private:
  const std::string shelf_;
  KillPoints* const points_;
  const std::unique_ptr<Disk> base_ = NewLinuxDisk();
  testing::FaultyDisk disk_{base_.get()};
  std::unique_ptr<Store> store_;
};

int Run(const std::string& shelf, bool recover, const std::string& point, uint64_t nth) {
  KillPoints points(point, nth);
  Writer writer(shelf, &points);
  const std::vector<KillStep> script = recover ? std::vector<KillStep>{{"open"}, {"close"}} : KillScript();
  for (size_t i = 0; i < script.size(); ++i) {
    points.set_phase(recover ? "recover" : script[i].phase);
    if (!Say(absl::StrCat("?", i, "\n"))) return 2;
    const absl::Status status = writer.Run(script[i]);
    if (!status.ok()) {
      std::fprintf(stderr, "step %zu, %s: %s\n", i, script[i].phase.c_str(), status.ToString().c_str());
      return 1;
    }
    if (!Say(absl::StrCat("!", i, "\n"))) return 2;
  }
  return point == "-" && !Say(points.Counts()) ? 2 : 0;
}

}  // namespace
}  // namespace tensorshelf

int main(int argc, char** argv) {
  if (argc != 5) return 64;
  return tensorshelf::Run(argv[1], std::string(argv[2]) == "recover", argv[3], std::strtoull(argv[4], nullptr, 10));
}
