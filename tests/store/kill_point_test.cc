// Goal: a process may die between any two calls to storage, in any operation, also while it recovers. Method: a writer
// in a process of its own kills itself at named points (an operation and a call) of one script; after each kill the
// shelf opens, holds every acknowledged step, and the checker finds no error.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "store/structure_check.h"
#include "tests/store/kill_script.h"
#include "tests/store/store_fixture.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

namespace fs = std::filesystem;
using testing::IsOk;

struct Point {
  std::string name;
  uint64_t count = 0;  // how often a run meets it
};

class KillPointTest : public StoreFixture {
 protected:
  KillPointTest() {
    // A killed process loses nothing that it wrote, synced or not: the disk plays no part in this test.
    if (::access("/dev/shm", W_OK) == 0) {
      fs::remove_all(root_);
      std::string pattern = "/dev/shm/tensorshelf_kill_point.XXXXXX";
      root_ = mkdtemp(pattern.data());
      path_ = root_ + "/shelf";
    }
    options_.staging_bytes = 2 << 20;
    options_.page_locked = false;
    options_.background_fill = false;
    options_.idle_witness_ms = 100000;
    states_.emplace_back();
    for (const KillStep& step : KillScript()) {
      Model next = states_.back();
      if (step.op.has_value()) {
        EXPECT_EQ(Apply(next, *step.op), absl::StatusCode::kOk);
      }
      states_.push_back(std::move(next));
    }
  }

  struct Ended {
    bool killed = false;
    int exit_code = 0;
    std::string said;
  };
  Ended RunWriter(const std::string& what, const std::string& point, uint64_t nth) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const std::string nth_text = std::to_string(nth);
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(120);
      ::dup2(ends[1], STDOUT_FILENO);
      ::execl(KILL_POINT_WRITER, KILL_POINT_WRITER, path_.c_str(), what.c_str(), point.c_str(), nth_text.c_str(),
              nullptr);
      ::_exit(65);
    }
    EXPECT_GT(child, 0);
    ::close(ends[1]);
    Ended ended;
    char buffer[4096];
    for (ssize_t got; (got = ::read(ends[0], buffer, sizeof(buffer))) > 0;) {
      ended.said.append(buffer, static_cast<size_t>(got));
    }
    ::close(ends[0]);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    ended.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    ended.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return ended;
  }

  // The points that a run which nothing kills meets.
  std::vector<Point> FindPoints(const std::string& what) {
    const Ended ended = RunWriter(what, "-", 0);
    EXPECT_EQ(ended.exit_code, 0);
    std::istringstream lines(ended.said);
    std::vector<Point> points;
    for (std::string line; std::getline(lines, line);) {
      if (line[0] == '?' || line[0] == '!') continue;
      std::istringstream words(line);
      Point point;
      words >> point.name >> point.count;
      points.push_back(point);
    }
    return points;
  }

  // Steps that were acknowledged, and steps that were begun.
  static std::pair<size_t, size_t> Progress(const std::string& said) {
    size_t acknowledged = 0, begun = 0;
    std::istringstream lines(said);
    for (std::string line; std::getline(lines, line);) {
      if (line[0] == '!') acknowledged = std::stoul(line.substr(1)) + 1;
      if (line[0] == '?') begun = std::stoul(line.substr(1)) + 1;
    }
    return {acknowledged, begun};
  }

  // What is wrong with the shelf that a kill left, or "".
  std::string Judge(size_t acknowledged, size_t begun) {
    auto opened = Store::Open(path_, options_);
    if (acknowledged == 0 && absl::IsNotFound(opened.status())) {
      CreateOptions again;
      again.capacity = kCapacityMin;
      again.prefill = Prefill::kNone;
      const absl::Status created = Store::Create(path_, again);
      return created.ok() ? "" : "a second creation: " + created.ToString();
    }
    if (!opened.ok()) return "open: " + opened.status().ToString();
    const std::unique_ptr<Store> store = *std::move(opened);
    const std::string before = Difference(*store, states_[acknowledged]);
    if (!before.empty() && !Difference(*store, states_[begun]).empty()) return "holds neither state: " + before;
    if (const std::string problem = SpaceProblem(*store); !problem.empty()) return problem;
    const std::string bytes = RandomBytes(90000, 99);
    if (const auto put = store->Put(BytesItem("after", bytes)); !put.ok()) return "put: " + put.status().ToString();
    if (const absl::Status closed = store->Close(); !closed.ok()) return "close: " + closed.ToString();
    std::string first;
    const auto checked = CheckStructure(path_, {.on_finding = [&](const Finding& finding) {
                                          if (finding.level == Finding::Level::kError && first.empty())
                                            first = finding.message;
                                        }});
    if (!checked.ok()) return "fsck: " + checked.status().ToString();
    return first.empty() ? "" : "fsck: " + first;
  }

  std::vector<Model> states_;  // [n]: after n steps
};

TEST_F(KillPointTest, EveryNamedPoint) {
  std::vector<Point> points = FindPoints("script");
  const size_t of_script = points.size();
  fs::remove_all(path_);
  // What recovery meets after a kill in the middle.
  RunWriter("script", "transaction/index-sync", 1);
  const std::vector<Point> recovery = FindPoints("recover");
  points.insert(points.end(), recovery.begin(), recovery.end());
  ASSERT_GE(of_script, 30u);
  ASSERT_GE(recovery.size(), 5u);

  const uint64_t seed = testing::Seed(5);
  std::mt19937_64 random(seed);
  const uint64_t hits_each = testing::Scaled(1);
  uint64_t kills = 0, missed = 0;
  for (const Point& point : points) {
    const bool in_recovery = absl::StartsWith(point.name, "recover/");
    for (uint64_t hit = 0; hit < hits_each; ++hit) {
      const uint64_t nth = 1 + random() % point.count;
      fs::remove_all(path_);
      Ended ended = in_recovery ? RunWriter("script", "replace/index-sync", 1 + random() % 2)
                                : RunWriter("script", point.name, nth);
      const auto [acknowledged, begun] = Progress(ended.said);
      // A crash during recovery: at this point, or after any other kill at one of recovery's points.
      if (in_recovery) {
        ended = RunWriter("recover", point.name, nth);
      } else if (acknowledged > 0 && hit % 2 == 1) {
        const Point& other = recovery[random() % recovery.size()];
        RunWriter("recover", other.name, 1 + random() % other.count);
      }
      const std::string where = absl::StrCat(point.name, " number ", nth, ", seed ", seed);
      ASSERT_TRUE(ended.killed || ended.exit_code == 0) << where << ": the writer failed with " << ended.exit_code;
      ++(ended.killed ? kills : missed);  // threads of RocksDB make a call more or less
      ASSERT_EQ(Judge(acknowledged, begun), "") << where << ", steps " << acknowledged << " to " << begun;
    }
  }
  testing::ReportTried(kills, seed);
  RecordProperty("points", std::to_string(points.size()));
  EXPECT_GT(kills, 10 * missed);
}

}  // namespace
}  // namespace tensorshelf
