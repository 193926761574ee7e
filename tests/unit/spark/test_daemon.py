"""Spark's archives leave the path of its workers only if its package is installed."""

import sys

from broker.spark import daemon

ARCHIVES = ["/x/python/lib/pyspark.zip", "/x/lib/py4j-0.10-src.zip", "/x/spark-core_2.13-4.jar"]


def test_archives_leave_the_path_and_what_is_sent_with_a_job_stays(monkeypatch):
    own = ["/job/sent.zip", *sys.path]
    monkeypatch.setattr(sys, "path", [*ARCHIVES, *own])
    monkeypatch.setattr(sys, "path_importer_cache", dict.fromkeys([*ARCHIVES, "/job/sent.zip"]))

    daemon.leave_archives_out()

    assert sys.path == own
    assert "/job/sent.zip" in sys.path_importer_cache
    assert not sys.path_importer_cache.keys() & set(ARCHIVES)


def test_archives_stay_where_the_package_is_nowhere_else(monkeypatch):
    path = [*ARCHIVES, *sys.path]
    monkeypatch.setattr(sys, "path", path[:])
    monkeypatch.setattr(daemon.importlib.util, "find_spec", lambda name: None)

    daemon.leave_archives_out()

    assert sys.path == path
