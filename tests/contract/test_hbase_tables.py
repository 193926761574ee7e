"""What only an HBase server can show: connections that break."""

import pickle
import socket
import threading
import time
import uuid
from contextlib import closing, suppress

import pytest

from broker.errors import ServiceError
from broker.store import hbase
from broker.store.hbase import HBaseTables
from broker.store.table import Family

pytestmark = pytest.mark.servers


class Proxy:
    """Passes bytes on to a server, until its connections are cut."""

    def __init__(self, host, port):
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.n_connections = 0
        self._open = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self.n_connections += 1
                self._open += [client, server]
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source, sink):
        with suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Break every open connection."""
        while self._open:
            end = self._open.pop()
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self):
        self.cut()
        self._listener.close()


@pytest.fixture
def proxy(stack):
    with closing(Proxy(stack.hbase.host, stack.hbase.thrift_port)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def name(hbase_tables):
    name = f"contract.{uuid.uuid4().hex[:12]}"
    hbase_tables.create(name, [Family("f")])
    yield name
    hbase_tables.drop(name)


def test_a_broken_connection_is_made_anew_and_the_batch_sent_again(proxy, name, hbase_tables):
    with closing(HBaseTables("127.0.0.1", proxy.port)) as tables:
        table = tables.table(name)
        for i in range(6):
            table.put([(b"cut%d-%d" % (i, j), {b"f:a": b"%d" % j}) for j in range(50)], 1)
            proxy.cut()

        assert table.get(b"cut5-49") == {b"f:a": b"49"}

    assert len(list(hbase_tables.table(name).scan(b"cut", b"cuu"))) == 300
    assert proxy.n_connections == 7


def test_a_scan_goes_on_where_the_connection_broke(proxy, name, hbase_tables):
    keys = [b"scan%05d" % i for i in range(2300)]
    hbase_tables.table(name).put(((key, {b"f:a": b"x"}) for key in keys), 1)

    with closing(HBaseTables("127.0.0.1", proxy.port)) as tables:
        got = []
        for key, _ in tables.table(name).scan(b"scan", b"scao"):
            got.append(key)
            if len(got) in (10, 1500):
                proxy.cut()

    assert got == keys


def test_an_idle_connection_is_not_trusted(proxy, name, monkeypatch):
    """The gateway closes what was idle for a minute; ours gives it up before."""
    with closing(HBaseTables("127.0.0.1", proxy.port)) as tables:
        tables.table(name).get(b"x")
        monkeypatch.setattr(hbase, "_IDLE_S", 0.01)
        time.sleep(0.05)
        tables.table(name).get(b"x")

    assert proxy.n_connections == 2


def test_a_server_that_is_not_there_is_named_in_the_error():
    nobody = HBaseTables("127.0.0.1", 1, timeout_s=0.5)
    begun = time.monotonic()

    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1"):
        nobody.names()

    assert time.monotonic() - begun < 30.0


def test_a_pickled_client_works(name, hbase_tables):
    with closing(pickle.loads(pickle.dumps(hbase_tables))) as copy:
        assert name in copy.names()


def test_several_threads_have_a_connection_each_and_no_more_than_were_allowed(stack, hbase_tables):
    name = f"pool-{uuid.uuid4().hex[:8]}"
    hbase_tables.create(name, [Family("f")])
    hbase_tables.table(name).put([(b"%d" % i, {b"f:v": b"%d" % i}) for i in range(60)])
    proxy = Proxy(stack.hbase.host, stack.hbase.thrift_port)
    found = {}

    with closing(HBaseTables("127.0.0.1", proxy.port, timeout_s=30.0, connections=3)) as tables:

        def read(first):
            table = tables.table(name)
            for i in range(first, 60, 6):
                rows = list(table.scan(b"%d" % i, b"%d\x00" % i))
                found[i] = rows[0][1][b"f:v"]

        threads = [threading.Thread(target=read, args=(first,)) for first in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pickle.loads(pickle.dumps(tables))._connections == 3
    hbase_tables.drop(name)

    assert found == {i: b"%d" % i for i in range(60)}
    assert 1 <= proxy.n_connections <= 3
