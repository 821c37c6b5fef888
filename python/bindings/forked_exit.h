// A forked child of a process with an open store must be able to exit.

#ifndef TENSORSHELF_PYTHON_BINDINGS_FORKED_EXIT_H_
#define TENSORSHELF_PYTHON_BINDINGS_FORKED_EXIT_H_

namespace tensorshelf {

// To be called after a store was opened. From then on, exit() in a forked child skips the exit handlers that stood
// before this call, among them the destructors of the index's global timer and thread pools: those wait for threads
// that the child does not have, for ever. Standard streams are flushed. Nothing changes in this process.
void SkipInheritedExitHandlers();

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_FORKED_EXIT_H_
