// Names folded at / and . into a tree with sums.

#ifndef TENSORSHELF_TOOLS_CLI_NAME_TREE_H_
#define TENSORSHELF_TOOLS_CLI_NAME_TREE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tools/cli/json_output.h"

namespace tensorshelf::cli {

struct TreeNode {
  std::string label;  // one part of the name, with its separator: "layers.", "weight"
  uint64_t names = 0;
  uint64_t bytes = 0;
  std::vector<TreeNode> children;  // in byte order; none below the depth
};

// Takes names in byte order. Memory grows with the nodes that are shown, not with the names.
class NameTree {
 public:
  explicit NameTree(size_t depth_max) : depth_max_(depth_max) {}
  void Add(const std::string& name, uint64_t bytes);
  const TreeNode& root() const { return root_; }

 private:
  const size_t depth_max_;
  TreeNode root_;
};

// One line a node: label, count of names, size; columns aligned.
std::string RenderTree(const TreeNode& root);
Json TreeJson(const TreeNode& root);

}  // namespace tensorshelf::cli

#endif  // TENSORSHELF_TOOLS_CLI_NAME_TREE_H_
