// Goal: STORE says what was written into it, also for odd paths and keys of a later version, and a mended file's
// mistakes are named by line. Method: round trips and one mistake at a time.

#include "store/store_file.h"

#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace tensorshelf {
namespace {

constexpr char kUuidA[] = "00112233-4455-6677-8899-aabbccddeeff";
constexpr char kUuidB[] = "ffeeddcc-bbaa-9988-7766-554433221100";
constexpr Uuid kA = {0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff};
constexpr Uuid kB = {0xff, 0xee, 0xdd, 0xcc, 0xbb, 0xaa, 0x99, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0x00};

std::string Head() { return std::string("format=1\nstore_uuid=") + kUuidA + "\n"; }
std::string DeviceLine(const std::string& rest) { return std::string("device=") + kUuidB + rest + "\n"; }

TEST(StoreFile, TextIsAsDocumented) {
  const StoreFile file{kA, {{kB, "."}}, {{"comment", "a=b"}}};
  EXPECT_EQ(FormatStoreFile(file), Head() + DeviceLine(" .") + "comment=a=b\n");
}

TEST(StoreFile, RoundTripOfOddPathsAndUnknownKeys) {
  const StoreFile file{
      kA, {{kA, "."}, {kB, " two words\nand \\n lines\r=#"}}, {{"later", "x"}, {"later", "twice"}, {"empty", ""}}};
  ASSERT_OK_AND_ASSIGN(const StoreFile parsed, ParseStoreFile(FormatStoreFile(file)));
  EXPECT_EQ(parsed, file);
}

TEST(StoreFile, CommentsEmptyLinesAndAMissingLastNewline) {
  const std::string text = "# made by hand\n\n" + Head() + "\n# the disk\n" + DeviceLine(" /mnt/a");
  ASSERT_OK_AND_ASSIGN(const StoreFile parsed, ParseStoreFile(text.substr(0, text.size() - 1)));
  EXPECT_EQ(parsed, (StoreFile{kA, {{kB, "/mnt/a"}}, {}}));
}

TEST(StoreFile, MistakesAreNamedByLine) {
  const auto loss = absl::StatusCode::kDataLoss;
  EXPECT_FAILS(ParseStoreFile(""), loss, "no format line");
  EXPECT_FAILS(ParseStoreFile("format=1\n"), loss, "no store_uuid line");
  EXPECT_FAILS(ParseStoreFile("format=2\n"), absl::StatusCode::kFailedPrecondition, "line 1: format is \"2\"");
  EXPECT_FAILS(ParseStoreFile("format=1 \n"), absl::StatusCode::kFailedPrecondition, "line 1");
  EXPECT_FAILS(ParseStoreFile("\nkey=1\n" + Head()), loss, "line 2: the first key must be format");
  EXPECT_FAILS(ParseStoreFile(Head() + "format=1\n"), loss, "line 3: format for the second time");
  EXPECT_FAILS(ParseStoreFile(Head() + "store_uuid=" + kUuidA + "\n"), loss, "line 3: store_uuid for the second time");
  EXPECT_FAILS(ParseStoreFile("format=1\nstore_uuid=12\n"), loss, "line 2: not a uuid: \"12\"");
  EXPECT_FAILS(ParseStoreFile(Head() + "nonsense\x1b\n"), loss, "line 3: not key=value: \"nonsense\\x1b\"");
  EXPECT_FAILS(ParseStoreFile(Head() + "=x\n"), loss, "line 3: not key=value");
  EXPECT_FAILS(ParseStoreFile(Head() + DeviceLine("")), loss, "line 3: device without a path hint");
  EXPECT_FAILS(ParseStoreFile(Head() + DeviceLine(" ")), loss, "line 3: device with an empty path hint");
  EXPECT_FAILS(ParseStoreFile(Head() + DeviceLine(" a\\x")), loss, "line 3: path hint with a backslash");
  EXPECT_FAILS(ParseStoreFile(Head() + DeviceLine(" a\\")), loss, "line 3: path hint with a backslash");
  EXPECT_FAILS(ParseStoreFile(Head() + "device=12 /mnt\n"), loss, "line 3: not a uuid");
  EXPECT_FAILS(ParseStoreFile(Head() + DeviceLine(" a") + DeviceLine(" b")), loss,
               "line 4: device " + std::string(kUuidB));
}

TEST(StoreFile, HintsMoveWithTheShelf) {
  const struct {
    const char *shelf, *device, *hint;
  } cases[] = {{"/a/shelf", "/a/shelf", "."},
               {"/a/shelf", "/a/shelf/dev0", "dev0"},
               {"/a/shelf", "/a/shelf2", "/a/shelf2"},
               {"/a/shelf", "/mnt/x", "/mnt/x"},
               {"/", "/dev0", "dev0"}};
  for (const auto& c : cases) {
    EXPECT_EQ(PathHint(c.shelf, c.device), c.hint);
    EXPECT_EQ(ResolveHint(c.shelf, c.hint), c.device);
  }
  EXPECT_EQ(ResolveHint("/moved", "dev0"), "/moved/dev0");
  EXPECT_EQ(ResolveHint("/moved", "."), "/moved");
}

}  // namespace
}  // namespace tensorshelf
