"""Loads a handler from its source: compile, import into its own module, check the entry point.

The module stays in `sys.modules` while the handler table or a request's grant refers to the handler: pickle, and late
readers of annotations, look there. Its source stays in `linecache` as long as the module lives, so that tracebacks show
the lines. Compiling and importing block the event loop: 1 ms for about 100 lines, plus the time of the source's own
imports. The import runs in a worker, which is left behind when the time is over.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import linecache
import sys
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from functools import partial
from itertools import count
from types import CodeType, ModuleType, TracebackType
from typing import Any, Final

from loguru import logger

from app.gateway.description import describe
from app.gateway.workers import CodeRaised, Overrun, TookTooLong, Worker

ENTRY_POINT: Final = "handle"
MAX_SOURCE_BYTES: Final = 256 * 1024
IMPORT_TIMEOUT_SECONDS: Final = 30.0
"""Limit for the import, whatever it catches; app.gateway.blocking ends one that computes."""

_WITH_STATEMENTS: Final = (ast.stmt, ast.match_case)

_serials = count(1)


class Stage(StrEnum):
    """The stage at which loading a source failed."""

    COMPILE = "compile"
    IMPORT = "import"
    ENTRY_POINT = "entry_point"


class HandlerError(Exception):
    """A source cannot be loaded. `line` is the faulty line, None if unknown; `traceback` is for its author."""

    def __init__(self, stage: Stage, message: str, line: int | None = None, traceback: str = "") -> None:
        super().__init__(f"{stage}: {message}" + (f" (line {line})" if line is not None else ""))
        self.stage = stage
        self.message = message
        self.line = line
        self.traceback = traceback or f"{stage}: {message}\n"


class LoadedHandler:
    """A callable handler in its own module, which is freed with the last reference to the handler."""

    __slots__ = ("__weakref__", "_handle", "module")

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self._handle = getattr(module, ENTRY_POINT)
        weakref.finalize(self, sys.modules.pop, module.__name__, None).atexit = False

    def __call__(self, request: Any, context: Any) -> Any:
        return self._handle(request, context)


def check_text(source: str) -> None:
    """Check that a source can be stored. Raises HandlerError if it is too long or not Unicode text."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError as error:
        raise HandlerError(Stage.COMPILE, f"the source is not Unicode text: {error}") from None
    if size > MAX_SOURCE_BYTES:
        raise HandlerError(Stage.COMPILE, f"the source is longer than {MAX_SOURCE_BYTES} bytes")


def load_handler(name: str, source: str, output: Callable[..., None] = print) -> LoadedHandler:
    """Load a handler from its source; tracebacks show `name`, such as `hello v3`. `output` is its `print`.

    Raises HandlerError.
    """
    serial = next(_serials)
    filename, module_name = f"<handler {name} #{serial}>", f"edgeproxy_handler_{serial}"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    try:
        loaded = _import_in_worker(name, _compile(source, filename), module_name, output)
    except BaseException:
        sys.modules.pop(module_name, None)
        linecache.cache.pop(filename, None)
        raise
    weakref.finalize(loaded.module, linecache.cache.pop, filename, None).atexit = False
    return loaded


def _compile(source: str, filename: str) -> CodeType:
    check_text(source)
    try:
        tree = ast.parse(source, filename)
        code = compile(tree, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        if error.text is None and error.lineno is not None:  # from the compiler, which looks for the line in a file
            error.text = linecache.getline(filename, error.lineno)
        text = "".join(traceback.format_exception_only(error))
        raise HandlerError(Stage.COMPILE, error.msg, error.lineno, text) from None
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:  # null bytes, nested too deeply
        raise HandlerError(Stage.COMPILE, f"{type(error).__name__}: {error}") from None
    _check_dependencies(tree, filename)
    return code


def _check_dependencies(tree: ast.Module, filename: str) -> None:
    """Check that the imported packages are installed, without importing them. Raises HandlerError for the first."""
    for node in _required_imports(tree.body):
        if isinstance(node, ast.ImportFrom) and node.level:
            message = "a handler is a single module: relative imports are not possible"
            raise HandlerError(Stage.COMPILE, message, node.lineno, _pointer(filename, node.lineno, message))
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            package = name.partition(".")[0]
            if not _is_installed(package):
                message = f"needs the module {package!r}, which is not installed"
                raise HandlerError(Stage.COMPILE, message, node.lineno, _pointer(filename, node.lineno, message))


def _required_imports(nodes: Iterable[ast.AST]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports among statements, except those in a `try`, which may fail, and those for type checkers."""
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Try | ast.TryStar) and node.handlers:
            yield from _required_imports([*node.orelse, *node.finalbody])
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _required_imports(node.orelse)
        elif isinstance(node, _WITH_STATEMENTS):  # not expressions, whose nesting is unbounded
            yield from _required_imports(ast.iter_child_nodes(node))


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def _pointer(filename: str, line: int, message: str) -> str:
    return f'  File "{filename}", line {line}\n    {linecache.getline(filename, line).strip()}\n{message}\n'


def _import_in_worker(name: str, code: CodeType, module_name: str, output: Callable[..., None]) -> LoadedHandler:
    """Import the source, and leave it behind when its time is over: what it makes later is discarded."""
    worker = Worker(partial(logger.error, "handler {}: its import was abandoned and does not end", name))
    try:
        return worker.run_within(IMPORT_TIMEOUT_SECONDS, _import, code, module_name, output)
    except CodeRaised as raised:
        error = raised.error
        raise error if isinstance(error, HandlerError) else HandlerError(Stage.IMPORT, str(raised)) from None
    except TookTooLong:
        message = f"took longer than {IMPORT_TIMEOUT_SECONDS:g} s"
        raise HandlerError(Stage.IMPORT, message, traceback=f"{worker.stack(code.co_filename)}{message}\n") from None
    finally:
        worker.end()


def _import(code: CodeType, name: str, output: Callable[..., None]) -> LoadedHandler:
    """Run the source in a new module, and check it. All code of the source that a load runs, runs here."""
    module = ModuleType(name)
    module.__file__ = code.co_filename
    module.__dict__["print"] = output
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
        _check_entry_point(module)
        return LoadedHandler(module)
    except HandlerError:
        raise
    except BaseException as error:
        raise _import_error(error, code.co_filename) from None


def _import_error(error: BaseException, filename: str) -> HandlerError:
    described = describe(error, tb_of_source(error.__traceback__, filename))
    if isinstance(error, Overrun):
        return HandlerError(Stage.IMPORT, f"held the event loop: {error}", traceback=described.traceback)
    if isinstance(error, ModuleNotFoundError) and error.name:
        message = f"needs the module {error.name!r}, which is not installed"
    else:
        message = described.line
    line = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == filename:
            line = number
    return HandlerError(Stage.IMPORT, message, line, described.traceback)


def tb_of_source(tb: TracebackType | None, filename: str) -> TracebackType | None:
    """Return a traceback from the first frame of a file on, or all of it if there is no such frame."""
    first = tb
    while first is not None and first.tb_frame.f_code.co_filename != filename:
        first = first.tb_next
    return first or tb


def _check_entry_point(module: ModuleType) -> None:
    entry = getattr(module, ENTRY_POINT, None)
    expected = f"must define `def {ENTRY_POINT}(request, context)`"
    if not callable(entry):
        raise HandlerError(Stage.ENTRY_POINT, f"{expected}, but has no `{ENTRY_POINT}`" if entry is None else expected)
    line = getattr(getattr(entry, "__code__", None), "co_firstlineno", None)
    if inspect.iscoroutinefunction(entry) or inspect.isasyncgenfunction(entry):
        raise HandlerError(Stage.ENTRY_POINT, f"{expected}, not `async def`: gevent needs no `await`", line)
    try:
        inspect.signature(entry).bind(None, None)
    except TypeError:
        raise HandlerError(Stage.ENTRY_POINT, f"{expected}: it cannot be called with two arguments", line) from None
    except ValueError:  # a callable written in C without a signature
        return
