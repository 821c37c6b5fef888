// A writer in a process of its own is killed with SIGKILL at a random moment, again and again on one store. After each
// kill the store opens and holds every acknowledged change; the one that was on its way is there whole or not at all.

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "tests/store/store_fixture.h"
#include "tests/store/store_model.h"
#include "tests/testing/scale.h"

namespace tensorshelf {
namespace {

using testing::IsOk;

class KillTest : public StoreFixture {
 protected:
  KillTest() {
    // A killed process loses nothing that it wrote, synced or not: the disk plays no part in this test.
    if (::access("/dev/shm", W_OK) != 0) return;
    std::filesystem::remove_all(root_);
    std::string pattern = "/dev/shm/tensorshelf_kill.XXXXXX";
    root_ = mkdtemp(pattern.data());
    path_ = root_ + "/shelf";
  }

  // Runs the writer until it has acknowledged `lines` changes, kills it, and returns all that it said.
  std::string RunAndKill(uint64_t seed, uint64_t number, size_t lines) {
    int ends[2] = {-1, -1};
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    const std::string seed_text = std::to_string(seed);
    const std::string number_text = std::to_string(number);
    const pid_t child = ::fork();
    if (child == 0) {
      ::dup2(ends[1], STDOUT_FILENO);
      ::execl(KILL_WRITER, KILL_WRITER, path_.c_str(), seed_text.c_str(), number_text.c_str(), nullptr);
      ::_exit(65);
    }
    EXPECT_GT(child, 0);
    ::close(ends[1]);
    std::string said;
    std::mt19937_64 random(seed);
    // Killed on the way to, or right after, a change: by how many bytes of its lines have come.
    const size_t enough = lines * 20 + random() % 40;
    char buffer[4096];
    ssize_t got = 1;
    while (said.size() < enough && (got = ::read(ends[0], buffer, std::min<size_t>(sizeof(buffer), 16))) > 0) {
      said.append(buffer, static_cast<size_t>(got));
    }
    ::kill(child, SIGKILL);
    while ((got = ::read(ends[0], buffer, sizeof(buffer))) > 0) said.append(buffer, static_cast<size_t>(got));
    ::close(ends[0]);
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status)) << "the writer ended by itself with " << WEXITSTATUS(status) << ", seed " << seed;
    return said;
  }

  // What the store must hold, and what it may hold instead if the last change went through.
  void Follow(const std::string& said, Model& model, Model& possible) {
    std::istringstream lines(said);
    std::string line;
    possible = model;
    while (std::getline(lines, line)) {
      const bool begun = line[0] == '?';
      Model& target = begun ? possible : model;
      std::istringstream words(begun ? line.substr(1) : line);
      std::string verb, name;
      ModelValue value;
      words >> verb >> name;
      if (verb == "put") {
        words >> value.size >> value.seed;
        target[name] = value;
        number_ = std::max(number_, value.seed);
      } else {
        target.erase(name);
      }
    }
  }

  uint64_t number_ = 0;
};

TEST_F(KillTest, NothingAcknowledgedIsLostInManyKills) {
  Create(uint64_t{32} << 20);
  options_.staging_bytes = 4 << 20;
  options_.page_locked = false;
  options_.background_fill = false;
  Model model;
  size_t changes = 0;
  const uint64_t first_seed = testing::Seed(1000), cycles = testing::Scaled(100);
  testing::ReportTried(cycles, first_seed);
  for (uint64_t cycle = 0; cycle < cycles; ++cycle) {
    const uint64_t seed = first_seed + cycle;
    const std::string said = RunAndKill(seed, number_ + 1, 1 + seed * 7 % 12);
    ASSERT_FALSE(HasFailure()) << "cycle " << cycle;
    changes += static_cast<size_t>(std::count(said.begin(), said.end(), '\n'));
    Model possible;
    Follow(said, model, possible);
    // A reader changes nothing, so that the next writer meets what the kill left, and not a clean store.
    options_.mode = cycle % 2 == 0 ? StoreOptions::Mode::kReadOnly : StoreOptions::Mode::kReadWrite;
    Open();
    ASSERT_NE(store_, nullptr) << "cycle " << cycle << ", seed " << seed;
    const std::string difference = Difference(*store_, model);
    if (!difference.empty()) {
      ASSERT_EQ(Difference(*store_, possible), "") << "cycle " << cycle << ", seed " << seed << "; " << difference;
      model = std::move(possible);
    }
    ASSERT_EQ(SpaceProblem(*store_), "") << "cycle " << cycle << ", seed " << seed;
    store_.reset();
  }
  EXPECT_GT(changes, 2 * cycles);
}

}  // namespace
}  // namespace tensorshelf
