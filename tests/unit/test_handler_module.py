"""Loading a source: a handler in its own module, or an error with stage, line and traceback; and unloading."""

from __future__ import annotations

import gc
import linecache
import pickle
import sys
import traceback
import weakref

import gevent
import pytest

from app.gateway import handler_module
from app.gateway.handler_module import MAX_SOURCE_BYTES, HandlerError, Stage, load_handler

GOOD = "def handle(request, context):\n    return 'hello'\n"


def failure(source: str) -> HandlerError:
    with pytest.raises(HandlerError) as caught:
        load_handler("bad v1", source)
    return caught.value


def test_a_handler_can_be_called():
    assert load_handler("good v1", GOOD)(None, None) == "hello"


def test_two_loads_of_one_source_share_nothing():
    source = "seen = []\n\ndef handle(request, context):\n    seen.append(request)\n    return seen\n"
    one, other = load_handler("a v1", source), load_handler("a v1", source)
    assert one(1, None) == [1]
    assert other(2, None) == [2]
    assert one.module.__name__ != other.module.__name__


def test_the_module_is_in_sys_modules_only_while_its_handler_is_referenced():
    source = """
from __future__ import annotations
import sys
from dataclasses import dataclass
from typing import ClassVar, get_type_hints

here = sys.modules[__name__]

@dataclass
class Point:
    x: int
    unit: ClassVar[str] = "m"

hints = get_type_hints(Point)

def handle(request, context):
    return Point(1), __name__ in sys.modules
"""
    before = set(sys.modules)
    loaded = load_handler("a v1", source)
    point, is_known = loaded(None, None)
    assert (point.x, is_known) == (1, True)
    assert loaded.module.here is loaded.module
    assert pickle.loads(pickle.dumps(point)) == point
    del loaded
    assert set(sys.modules) - before == set()


@pytest.mark.parametrize("source", ["def handle(:", "1 / 0", "nothing = 1"])
def test_a_source_that_fails_leaves_no_module(source):
    before = set(sys.modules)
    failure(source)
    assert set(sys.modules) - before == set()


@pytest.mark.parametrize(
    "error",
    [
        "BaseException('of its own')",
        "__import__('gevent').GreenletExit()",
        "type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()",
    ],
)
def test_any_exception_of_an_import_is_reported(error):
    told = failure(f"x = 1\nraise {error}")
    assert (told.stage, told.line) == (Stage.IMPORT, 2)
    assert "raise" in told.traceback


@pytest.mark.parametrize(
    "source",
    [
        "class Handler:\n    def __call__(self, request, context):\n        return 1\nhandle = Handler()\n",
        "handle = lambda *arguments: 1\n",
        "def handle(request, context, more=1):\n    return 1\n",
        "import functools\nhandle = functools.partial(lambda a, b, c: 1, 0)\n",
        "handle = max\n",
    ],
)
def test_anything_that_takes_two_arguments_is_an_entry_point(source):
    assert load_handler("a v1", source)(1, 1) == 1


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("x = 1\ndef handle(:\n    pass\n", 2, "invalid syntax"),
        ("def handle(request, context):\n  a\n b\n", 3, "unindent does not match"),
        ("x = 'abc\n", 1, "unterminated string"),
        ("a = " + "(" * 500 + ")" * 500, 1, "too many nested parentheses"),
        ("x = 1\0", None, "null bytes"),
        ("x = '\ud800'", None, "not Unicode text"),
        ("return 1", 1, "'return' outside function"),
        ("#" * (MAX_SOURCE_BYTES + 1), None, f"longer than {MAX_SOURCE_BYTES} bytes"),
        ("import os\nimport no_such_thing.at_all\n", 2, "needs the module 'no_such_thing', which is not installed"),
        ("def handle(r, c):\n    from no_such_thing import x\n", 2, "needs the module 'no_such_thing'"),
        ("class A:\n    if 1:\n        import no_such_thing\n", 3, "'no_such_thing'"),
        ("try:\n    import no_such_thing\nfinally:\n    pass\n", 2, "'no_such_thing'"),
        ("try:\n    pass\nexcept E:\n    pass\nelse:\n    import no_such_thing\n", 6, "'no_such_thing'"),
        ("import typing\nif typing.TYPE_CHECKING:\n    pass\nelse:\n    import nothing\n", 5, "'nothing'"),
        ("match 1:\n    case 1:\n        import no_such_thing\n", 3, "'no_such_thing'"),
        ("from . import x\n", 1, "relative imports are not possible"),
        ("from .. import x\n", 1, "relative imports are not possible"),
    ],
)
def test_a_source_that_does_not_compile(source, line, text):
    error = failure(source)
    assert (error.stage, error.line) == (Stage.COMPILE, line)
    assert text in error.message
    assert text in error.traceback
    if line is not None:
        assert f", line {line}" in error.traceback
        assert source.splitlines()[line - 1].strip()[:20] in error.traceback


def test_deep_nesting_is_an_error_and_not_a_crash():
    assert failure("x = " + "-" * 100_000 + "1").stage is Stage.COMPILE
    assert failure("x = " + "a." * 50_000 + "b").stage is Stage.COMPILE
    for depth in (300, 900, 1100, 2000):
        assert failure("a = 1\nx = " + "a" + ".real" * depth + "\n").stage in (Stage.COMPILE, Stage.ENTRY_POINT)


def test_an_optional_import_may_be_missing():
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import no_such_types
try:
    import no_such_thing
except ImportError:
    no_such_thing = None

def handle(request, context):
    return no_such_thing
"""
    assert load_handler("a v1", source)(None, None) is None


def test_a_name_that_cannot_be_looked_up_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "half_gone", None)
    assert failure("import half_gone\n").stage is Stage.IMPORT
    monkeypatch.setattr("importlib.util.find_spec", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert failure("import no_such_thing\n").stage is Stage.COMPILE


def test_a_missing_part_of_an_installed_package_is_named_with_its_line():
    error = failure("x = 1\n\nimport os.no_such_part\n")
    assert (error.stage, error.line) == (Stage.IMPORT, 3)
    assert error.message == "needs the module 'os.no_such_part', which is not installed"


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("x = 1\ny = x / 0\n", 2, "ZeroDivisionError: division by zero"),
        ("def f():\n    raise KeyError('a')\n\nf()\n", 2, "KeyError: 'a'"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("raise KeyboardInterrupt\n", 1, "KeyboardInterrupt"),
        ("from os import no_such_name\n", 1, "cannot import name 'no_such_name'"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
    ],
)
def test_a_source_that_fails_in_its_import(source, line, text):
    error = failure(source)
    assert (error.stage, error.line) == (Stage.IMPORT, line)
    assert text in error.message
    assert source.splitlines()[line - 1].strip() in error.traceback
    assert "handler_module.py" not in error.traceback, "the way to the source is none of its author's affair"


def test_an_import_that_waits_too_long_is_ended(monkeypatch):
    monkeypatch.setattr(handler_module, "IMPORT_TIMEOUT_SECONDS", 0.05)
    error = failure("import time\nx = 1\ntime.sleep(60)\n")
    assert (error.stage, error.message) == (Stage.IMPORT, "took longer than 0.05 s")
    assert "time.sleep(60)" in error.traceback


@pytest.mark.parametrize("last", ["", "def __getattr__(name):\n    time.sleep(60)\n", "raise Late\n"])
def test_an_import_is_left_behind_whatever_it_catches(last, monkeypatch):
    """The first one ends when it is abandoned, with a handler; the others wait when they are checked or described."""
    monkeypatch.setattr(handler_module, "IMPORT_TIMEOUT_SECONDS", 0.05)
    late = "import time\nclass Late(Exception):\n    def __str__(self):\n        time.sleep(60)\n"
    wait = "try:\n    time.sleep(60)\nexcept BaseException:\n    pass\n" + GOOD
    before = set(sys.modules)
    error = failure(late + (last or wait))
    assert (error.stage, error.message) == (Stage.IMPORT, "took longer than 0.05 s")
    assert "time.sleep(60)" in error.traceback
    assert "workers.py" not in error.traceback
    gevent.sleep(0.01)
    assert set(sys.modules) - before == set()


def test_the_callers_own_timeout_is_left_alone():
    with gevent.Timeout(0.05) as timeout, pytest.raises(gevent.Timeout) as caught:
        load_handler("a v1", "import time\ntime.sleep(60)\n")
    assert caught.value is timeout


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("x = 1\n", None, "must define `def handle(request, context)`, but has no `handle`"),
        ("handle = 7\n", None, "must define `def handle(request, context)`"),
        ("\ndef handle(request):\n    pass\n", 2, "cannot be called with two arguments"),
        ("def handle(request, context, *, more):\n    pass\n", 1, "cannot be called with two arguments"),
        ("async def handle(request, context):\n    pass\n", 1, "not `async def`"),
    ],
)
def test_an_invalid_entry_point(source, line, text):
    error = failure(source)
    assert (error.stage, error.line) == (Stage.ENTRY_POINT, line)
    assert text in error.message


def test_nothing_is_left_of_a_source_that_failed():
    modules, lines = set(sys.modules), set(linecache.cache)
    for source in ("def", "1 / 0", "x = 1", "import no_such_thing"):
        failure(source)
    assert set(sys.modules) == modules
    assert {name for name in set(linecache.cache) - lines if name.startswith("<handler")} == set()


def test_a_traceback_at_run_time_shows_the_lines():
    loaded = load_handler("oops v3", "def handle(request, context):\n    value = {}\n    return value['missing']\n")
    linecache.checkcache()
    try:
        loaded(None, None)
    except KeyError:
        text = traceback.format_exc()
    assert "<handler oops v3 #" in text
    assert "line 3, in handle\n    return value['missing']" in text


def test_dropping_the_last_reference_frees_the_module():
    loaded = load_handler("a v1", GOOD + "\nclass Thing:\n    pass\n\nthings = [Thing()]\n")
    filename = loaded.module.__file__
    module, handle, thing = map(weakref.ref, (loaded.module, loaded.module.handle, loaded.module.things[0]))
    assert filename in linecache.cache
    assert loaded(None, None) == "hello"
    del loaded
    assert module() is None, "at once: nothing refers to the module itself"
    assert filename not in linecache.cache
    gc.collect()
    assert (handle(), thing()) == (None, None), "what it contained goes with the next full collection"
