// The submodule tensorshelf._core.aio, of which python/tensorshelf/aio shows all but the leading underscores.

#ifndef TENSORSHELF_PYTHON_BINDINGS_AIO_MODULE_H_
#define TENSORSHELF_PYTHON_BINDINGS_AIO_MODULE_H_

#include <pybind11/pybind11.h>

namespace tensorshelf {

void DefineAio(pybind11::module_& module);

}  // namespace tensorshelf

#endif  // TENSORSHELF_PYTHON_BINDINGS_AIO_MODULE_H_
