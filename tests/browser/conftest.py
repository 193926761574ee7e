"""A real Chromium, driven through its debugging port, and a server with alerts in memory."""

import base64
import contextlib
import json
import shutil
import subprocess
import threading
import time
import urllib.request

import pytest
import serving
import uvicorn
import websocket
from openid_provider import CLIENT, SECRET, openid_provider

from broker.alerts.adapters import find_adapters
from broker.api import make_app
from broker.api.app import PREFIX
from broker.api.watchlists import add_watchlists
from broker.ops.tokens import Tokens
from broker.ops.watchlists import Keeper
from broker.portal import add_portal
from broker.portal.account import BACK
from broker.portal.openid import Provider, Registration
from broker.simulation.packets import simulate_packets
from broker.topics.topic import Message
from broker.watchlists import WatchBook, Watchlist, read_entries

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab."""

    def __init__(self, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=10) as answer:
            page = next(one for one in json.load(answer) if one["type"] == "page")
        self._socket = websocket.create_connection(
            page["webSocketDebuggerUrl"], timeout=60, suppress_origin=True
        )
        self._number = 0
        self.requests, self.problems = [], []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self):
        self._socket.close()

    def _receive(self):
        message = json.loads(self._socket.recv())
        self._note(message)
        return message

    def _note(self, message):
        values = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(values["exceptionDetails"]["text"])
        elif message.get("method") == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.problems.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")

    def call(self, method, **values):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": values}))
        while True:
            message = self._receive()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return message["result"]

    def size(self, width, height, *, dark=False, phone=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url):
        self.requests.clear()
        self.problems.clear()
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")
        self.wait("[...document.images].every((image) => image.complete)")

    def run(self, script):
        """Return the value of a script's last expression; of a promise what it becomes."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script, seconds=20.0):
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"never came true: {script}"
            time.sleep(0.02)

    def press(self, key, code=0):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    def type(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        """Click the middle of an element, as a mouse does."""
        place = self.run(
            "(() => { const one = document.querySelector("
            + json.dumps(selector)
            + "); one.scrollIntoView({block: 'center'}); const r = one.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    def picture(self, path=None, *, whole=False):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        png = base64.b64decode(data)
        if path is not None:
            path.write_bytes(png)
        return png


@contextlib.contextmanager
def chromium(folder):
    """Start Chromium; yield its debugging port."""
    process = subprocess.Popen(
        [
            CHROMIUM,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--no-first-run",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "about:blank",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        file = folder / "DevToolsActivePort"
        deadline = time.monotonic() + 60.0
        while not (file.exists() and file.read_text().count("\n")):
            assert process.poll() is None, "chromium ended"
            assert time.monotonic() < deadline, "chromium did not start"
            time.sleep(0.05)
        yield int(file.read_text().splitlines()[0])
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="session")
def chromium_port(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    with chromium(tmp_path_factory.mktemp("chromium")) as port:
        yield port


@pytest.fixture
def browser(chromium_port):
    tab = Browser(chromium_port)
    tab.size(1280, 900)
    yield tab
    tab.close()


@contextlib.contextmanager
def served(app):
    """Serve an application on a free port; yield its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30.0
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


PAIR = "ZTF99pair"


@pytest.fixture(scope="session")
def owners(tmp_path_factory):
    """Those who may keep watchlists on the site."""
    return Tokens(tmp_path_factory.mktemp("owners"), scopes=("watch",))


@pytest.fixture(scope="session")
def provider():
    """With whom one may sign in: on another site, as cookies see it."""
    with openid_provider() as fake:
        fake.move(fake.url.replace("127.0.0.1", "localhost"))
        yield fake


@pytest.fixture(scope="session")
def site(tmp_path_factory, owners, provider):
    """The address of a portal over a broker in memory, with a watchlist."""
    folder = tmp_path_factory.mktemp("served")
    broker = serving.made_broker(folder)
    _add_pair(broker)
    sources = broker.sources
    app = make_app(sources, requests_per_s=1e6, burst=1_000_000)
    book = WatchBook(folder / "watchlists")
    keeper = Keeper(book, sources.topics, sources.run, sources.contributions)
    keeper.put(Watchlist("stars", "ann", "", doc="Of a test."), read_entries("ra,dec\n10,20\n"))
    add_watchlists(app, keeper, owners, prefix=PREFIX)
    add_portal(app)
    with served(app) as address:
        provider.back = address + BACK
        ours = Registration(provider.url, CLIENT, SECRET, "the Institute")
        app.state.openid = Provider(ours, provider.back)
        yield address


def _add_pair(broker):
    """Store two alerts of one object, with their packets."""
    name = broker.sources.run.alerts_topic("ztf")
    matches = serving.sample_alerts(1, cutouts=False)
    for at in broker.topics.send(name, [Message(p) for p in simulate_packets("ztf", 2, 9)]):
        packet = broker.topics.get(at).value
        batch = find_adapters()["ztf"].decode_one(packet, at)
        for column in matches.column_names[len(batch.column_names) :]:
            batch = batch.append_column(matches.schema.field(column), matches[column])
        serving.put(broker.store, serving.with_values(batch, diaObjectId=[PAIR]))
