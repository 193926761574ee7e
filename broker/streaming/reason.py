"""Why a query failed, in one line: the innermost cause of what Spark reports in a hundred."""

import re

_CAUSE = re.compile(
    r"^(?:Caused by: |: )?(?P<kind>[A-Za-z_][\w.$]*(?:Error|Exception)): (?P<words>.*\S.*)$"
)
_WRAPPING = "Traceback (most recent call last)"


def reason_of(error: BaseException | None) -> str:
    """Return the last cause that an error's text names, else its first line.

    An exception of a worker comes wrapped by Python, Java and Python again, its own line last.

    Parameters
    ----------
    error : BaseException or None
        What `StreamingQuery.exception` says; None if the query ended without one.
    """
    if error is None:
        return "it ended"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    for line in reversed(lines):
        found = _CAUSE.match(line)
        if found and _WRAPPING not in line:
            return f"{found['kind'].rpartition('.')[2]}: {found['words']}"
    return lines[0] if lines else type(error).__name__
