// Goal: the kept process number is that of getpid in the first process, in its child and in the child of that.
// Method: real forks, whose exit status tells what they saw.

#include "engine/foundation/process_id.h"

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

TEST(ProcessId, IsTheOneOfTheProcessThatAsks) {
  const pid_t parent = ProcessId();
  EXPECT_EQ(parent, ::getpid());
  EXPECT_EQ(InChild([&] { return ProcessId() == ::getpid() && ProcessId() != parent ? 7 : 1; }), 7);
  EXPECT_EQ(InChild([&] { return InChild([&] { return ProcessId() == ::getpid() ? 8 : 1; }); }), 8);
  EXPECT_EQ(ProcessId(), parent);
}

}  // namespace
}  // namespace tensorshelf
