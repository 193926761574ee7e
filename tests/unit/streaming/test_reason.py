"""The one line that an operator reads when a query fails."""

import pytest

from broker.streaming.reason import reason_of

FROM_WORKER = """[STREAM_FAILED] Query terminated with exception: An exception was raised by the \
Python Proxy. Return Message: Traceback (most recent call last):
  File "clientserver.py", line 644, in _call_proxy
    return_value = getattr(self.pool[obj_id], method)(*params)
PythonException: An exception was thrown: Traceback (most recent call last):
  File "worker.py", line 3, in work
    config.other
AttributeError: 'Config' object has no attribute 'other'
"""

FROM_JAVA = """Return Message: Traceback (most recent call last):
py4j.protocol.Py4JJavaError: An error occurred while calling o93.save.
: org.apache.spark.SparkException: Job aborted due to stage failure
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2)
Caused by: org.apache.kafka.common.errors.TimeoutException: Topic x not present after 60000 ms.
\tat org.apache.kafka.clients.producer.KafkaProducer.send(KafkaProducer.java:1)
"""

FROM_DRIVER = """Return Message: Traceback (most recent call last):
  File "images.py", line 3, in each_batch
broker.errors.ServiceError: HBase at 127.0.0.1:1 does not answer
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FROM_WORKER, "AttributeError: 'Config' object has no attribute 'other'"),
        (FROM_JAVA, "TimeoutException: Topic x not present after 60000 ms."),
        (FROM_DRIVER, "ServiceError: HBase at 127.0.0.1:1 does not answer"),
        ("one line\nanother", "one line"),
        ("", "RuntimeError"),
    ],
)
def test_the_innermost_cause_is_named(text, reason):
    assert reason_of(RuntimeError(text)) == reason


def test_a_query_that_ended_by_itself_has_no_error():
    assert reason_of(None) == "it ended"
