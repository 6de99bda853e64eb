"""A headless Chromium with one page, driven by its own DevTools protocol over a pair of pipes.

What a test needs of it is a hundred lines; selenium or playwright would bring a driver that must fit the browser, and
event loops beside gevent's. Debian's `chromium` is used, see tests/integration/http_peers.py `program`.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import gevent
import pytest

from tests.harness import PATIENCE_SECONDS, eventually
from tests.programs import program

RESPONSE_SECONDS = 60.0
"""The first start of a browser on a busy host is slow."""
PIPES_WHERE_IT_WANTS_THEM = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "ArrowDown": 40}
"""Keys by name, with their Windows codes, which the protocol uses."""


class Page:
    """The page in the browser. Collects its errors and requests."""

    def __init__(self, to_browser: IO[bytes], from_browser: IO[bytes]) -> None:
        self._to_browser = to_browser
        self._from_browser = from_browser
        self._received = b""
        self._session: str | None = None
        self._last_id = 0
        self.errors: list[str] = []
        """Exceptions, console errors and warnings, CSP violations."""
        self.requests: list[str] = []
        """The URL of every request."""
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; events that come before it are noted."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._to_browser.write(json.dumps(message).encode() + b"\0")
        while True:
            response = self._receive()
            if response.get("id") == self._last_id:
                assert "error" not in response, f"{method}: {response['error']}"
                return dict(response["result"])
            self._note(response.get("method", ""), response.get("params", {}))

    def _receive(self) -> dict[str, Any]:
        with gevent.Timeout(RESPONSE_SECONDS, TimeoutError("the browser does not answer")):
            while b"\0" not in self._received:
                some = self._from_browser.read(1 << 20)
                assert some, "the browser has ended"
                self._received += some
        message, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: str, said: dict[str, Any]) -> None:
        match event:
            case "Network.requestWillBeSent":
                self.requests.append(said["request"]["url"])
            case "Runtime.exceptionThrown":
                details = said["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if said["type"] in ("error", "warning", "assert"):
                self.errors.append(" ".join(str(one.get("value", one.get("description"))) for one in said["args"]))
            case "Log.entryAdded" if said["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{said['entry']['source']}: {said['entry']['text']} {said['entry'].get('url', '')}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        done = self.command("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def open(self, url: str) -> None:
        self.command("Page.navigate", url=url)
        eventually(lambda: self.evaluate(f"location.href == {json.dumps(url)} && document.readyState == 'complete'"))

    # Seeing

    def text(self, selector: str) -> str:
        """Return the text shown of the first element, "" where there is none or it is not shown."""
        one = f"document.querySelector({json.dumps(selector)})"
        return str(self.evaluate(f"{one}?.checkVisibility() ? {one}.innerText : ''"))

    def texts(self, selector: str) -> list[str]:
        """Return the text of every element."""
        every = f"[...document.querySelectorAll({json.dumps(selector)})]"
        return list(self.evaluate(f"{every}.map((one) => one.textContent)"))

    def wait_for(self, selector: str, text: str = "") -> None:
        """Wait until the first such element is shown and has this in its text."""
        is_shown = f"!!document.querySelector({json.dumps(selector)})?.checkVisibility()"
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (self.evaluate(is_shown) and text in self.text(selector)):
            if time.monotonic() > deadline:
                pytest.fail(f"no {text!r} in {selector}, but {self.text(selector)!r}; the browser said {self.errors}")
            gevent.sleep(0.02)

    # Acting

    def click(self, selector: str) -> None:
        """Press the mouse's button on the middle of the first such element, once nothing around it is being changed."""
        self.wait_for(selector)
        is_busy = f"!!document.querySelector({json.dumps(selector)}).closest('[aria-busy]')"
        eventually(lambda: not self.evaluate(is_busy), what=f"what is around {selector} stands still")
        place = self.evaluate(f"""(() => {{
            const one = document.querySelector({json.dumps(selector)});
            one.scrollIntoView({{block: "center", behavior: "instant"}});
            const box = one.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def press(self, key: str, *, shift: bool = False) -> None:
        """Press a key of KEYS and let it go."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        common["modifiers"] = 8 if shift else 0
        self.command("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.command("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text: str) -> None:
        """Put text where the focus is, as a keyboard or a paste does."""
        self.command("Input.insertText", text=text)

    def fill(self, selector: str, text: str) -> None:
        """Replace what stands in a field."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        self.evaluate("document.activeElement.select()")
        self.type(text)

    def choose_file(self, selector: str, path: Path) -> None:
        """Choose a file in a file input."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    @property
    def focused(self) -> str:
        """The id of what has the focus, else its label, else its text."""
        return str(
            self.evaluate(
                "document.activeElement.id || document.activeElement.getAttribute('aria-label')"
                " || document.activeElement.innerText"
            )
        )

    # Appearance

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def prefer(self, **features: str) -> None:
        """Want media features, such as prefers_color_scheme="dark"."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", features=wanted)

    def screenshot(self, path: Path) -> None:
        """Write what is seen as PNG."""
        taken = self.command("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(taken["data"]))


@contextmanager
def open_browser(folder: Path) -> Iterator[Page]:
    """Run a browser for the block, with a profile in an empty folder; yields its page."""
    chromium = subprocess.Popen(
        [
            *("sh", "-c", PIPES_WHERE_IT_WANTS_THEM, "sh", program("chromium", "chromium"), "--headless=new"),
            *("--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "--no-sandbox", "--disable-gpu"),
            *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--disable-extensions", "--disable-dev-shm-usage", "--hide-scrollbars"),
        ],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert chromium.stdin is not None
    assert chromium.stdout is not None
    try:
        yield Page(chromium.stdin, chromium.stdout)
    finally:
        os.killpg(chromium.pid, signal.SIGKILL)  # the session we started it in, helpers included
        chromium.wait()
        chromium.stdin.close()
        chromium.stdout.close()
