// Pictures of data files: what lies where, in cells of equal size. Pure functions.

#ifndef TENSORSHELF_TOOLS_CLI_SPACE_PICTURE_H_
#define TENSORSHELF_TOOLS_CLI_SPACE_PICTURE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tools/cli/console.h"
#include "tools/cli/shelf_space.h"

namespace tensorshelf::cli {

// A stretch of one file.
struct Cell {
  double live = 0;  // share of its units, 0 .. 1
  bool bad = false;
  int32_t prefix = -1;  // position in ShelfSpace::prefixes of what takes most of it; -1: nothing, or no name
};

// At most `count` cells; the last one may stand for less than the others.
std::vector<Cell> CellsOf(const ShelfSpace& space, const FileUse& file, size_t count);

std::string RenderMap(const ShelfSpace& space, const Console& console);
// A whole SVG document, a row a stretch of each file.
std::string MapSvg(const ShelfSpace& space);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_SPACE_PICTURE_H_
