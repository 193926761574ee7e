"""The Spark session: what workers find, and that nothing of it reaches the terminal."""

import sys


def test_workers_run_our_python_with_one_thread_each(spark, stack_config):
    def look(batches):
        import os
        import sys

        import pyarrow as pa

        for _ in batches:
            names = ("OMP_NUM_THREADS", "NUMBA_CACHE_DIR", "MALLOC_TRIM_THRESHOLD_")
            found = [sys.executable, *(os.environ.get(name, "") for name in names)]
            yield pa.RecordBatch.from_pydict({"said": found})

    rows = spark.range(1).coalesce(1).mapInArrow(look, "said string").collect()

    assert [row.said for row in rows] == [
        sys.executable,
        "1",
        str(stack_config.cache / "numba"),
        "4294967296",
    ]


def test_batches_have_the_configured_size(spark, stack_config):
    def count(batches):
        import pyarrow as pa

        for batch in batches:
            yield pa.RecordBatch.from_pydict({"n": pa.array([batch.num_rows])})

    sizes = [r.n for r in spark.range(1200).coalesce(1).mapInArrow(count, "n bigint").collect()]

    assert max(sizes) == stack_config.stream.max_records_per_batch


def test_what_java_says_goes_to_files(spark, stack_config, capfd):
    spark.sparkContext._jvm.System.err.println("a word of the Java process")

    assert "a word of the Java process" not in "".join(capfd.readouterr())
    logs = stack_config.home / "logs"
    assert "a word of the Java process" in (logs / "tests.out").read_text()
    assert (logs / "tests.log").exists()


def test_a_second_session_of_the_process_is_the_first(spark, stack_config):
    from broker.spark.session import make_session

    assert make_session(stack_config, "other") is spark


def test_a_task_does_not_read_sparks_archives_anew(spark):
    def look(batches):
        import sys

        import pyarrow as pa
        import pyspark

        for _ in batches:
            known = [*sys.path, *sys.path_importer_cache, pyspark.__file__]
            yield pa.RecordBatch.from_pydict({"said": known})

    rows = spark.range(1).coalesce(1).mapInArrow(look, "said string").collect()

    places = [row.said for row in rows]
    assert places[-1] == sys.modules["pyspark"].__file__
    assert not [p for p in places if "pyspark.zip" in p or "py4j-" in p or p.endswith(".jar")]
