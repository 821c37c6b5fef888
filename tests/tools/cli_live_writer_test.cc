// Goal: looking at a shelf beside a writer never reports damage that is not there, and never writes. Method: a thread
// puts, replaces, moves and deletes without a pause while info, ls, stat, verify and fsck are called again and again;
// once the writer rests, they must leave every file of the shelf as it is.

#include <atomic>
#include <random>
#include <thread>

#include "store/move.h"
#include "tests/testing/scale.h"
#include "tests/tools/cli_fixture.h"

namespace tensorshelf::cli {
namespace {

class CliLiveWriter : public CliFixture {};

TEST_F(CliLiveWriter, NoFalseAlarmAndNoWrites) {
  const uint64_t seed = testing::Seed(14), runs = testing::Scaled(40);
  std::unique_ptr<Store> writer = OpenStore();
  PutBytes(*writer, "fixed", std::string(200000, 'f'));
  std::atomic<bool> stop = false;
  std::atomic<uint64_t> changes = 0;
  std::thread thread([&] {
    std::mt19937_64 random(seed);
    while (!stop) {
      const std::string name = absl::StrCat("n/", random() % 10);
      const uint64_t choice = random() % 10;
      if (choice < 7) {
        PutBytes(*writer, name, RandomBytes(random() % 2 == 0 ? 300 : 1000 + random() % 200000, random() % 1000));
      } else if (choice == 7) {
        const MoveRequest move{.name = name};
        const auto moved = writer->Move({&move, 1});
        EXPECT_TRUE(moved.ok() || absl::IsNotFound(moved.status())) << moved.status();
      } else {
        auto transaction = writer->Begin();
        ASSERT_OK(transaction);
        transaction->Delete(name, /*missing_ok=*/true);
        ASSERT_OK(transaction->Commit());
      }
      changes.fetch_add(1);
    }
  });
  const std::vector<std::vector<std::string>> looks = {
      {"info", shelf(), "--json"}, {"ls", shelf(), "--long"}, {"stat", shelf(), "fixed", "--json"},
      {"verify", shelf()},         {"fsck", shelf()},         {"df", shelf()}};
  for (uint64_t run = 0; run < runs && !HasFailure(); ++run) {
    const std::vector<std::string>& look = looks[run % looks.size()];
    const Outcome outcome = Call(look);
    EXPECT_EQ(outcome.status, 0) << look[0] << ", run " << run << ", seed " << seed << "\n"
                                 << outcome.out << outcome.err;
  }
  stop = true;
  thread.join();
  EXPECT_GT(changes.load(), runs);
  // A new one has no work left over in the background.
  ASSERT_OK(writer->Close());
  writer = OpenStore();
  ASSERT_OK(writer->Flush());
  auto before = Fingerprint(shelf_);
  std::erase_if(before,
                [](const auto& entry) { return entry.first.ends_with("/counters"); });  // the writer's own clock
  for (const std::vector<std::string>& look : looks) EXPECT_EQ(Call(look).status, 0) << look[0];
  auto after = Fingerprint(shelf_);
  std::erase_if(after, [](const auto& entry) { return entry.first.ends_with("/counters"); });
  EXPECT_EQ(after, before);
  testing::ReportTried(runs + looks.size(), seed);
}

}  // namespace
}  // namespace tensorshelf::cli
