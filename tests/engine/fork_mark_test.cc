// Goal: a forked child, and its child, know that they are not the process that made an object; the maker goes on.
// Method: real forks, whose exit status tells what they saw.

#include "engine/foundation/fork_mark.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

namespace tensorshelf {
namespace {

// The exit status of a child that runs `body`.
template <typename Body>
int InChild(const Body& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(ForkMark, TheChildIsForkedTheParentIsNot) {
  const ForkMark mark;
  EXPECT_FALSE(mark.forked());
  EXPECT_EQ(InChild([&] { return mark.forked() ? 7 : 1; }), 7);
  EXPECT_EQ(InChild([&] { return InChild([&] { return mark.forked() ? 8 : 1; }); }), 8);
  EXPECT_FALSE(mark.forked());
}

TEST(ForkMark, AMarkOfTheChildIsItsOwn) {
  const ForkMark mark;
  EXPECT_EQ(InChild([] {
              const ForkMark own;
              return own.forked() ? 1 : 9;
            }),
            9);
}

}  // namespace
}  // namespace tensorshelf
