"""A notice from its bytes, JSON or XML."""

from pathlib import Path

from broker.errors import AlertError
from broker.notices.gcn import parse_gcn
from broker.notices.notice import Notice
from broker.notices.voevent import parse_voevent

_BOM = b"\xef\xbb\xbf"


def parse_notice(body: bytes | None, *, maps: Path | None = None) -> Notice:
    """Return a notice; what is not all right is refused.

    Parameters
    ----------
    body : bytes or None
        JSON or XML, told apart by its first character.
    maps : Path, optional
        The folder in which maps may be that a notice names by path.

    Raises
    ------
    AlertError
        If it cannot be used; the message says why.
    """
    if not body or not body.strip():
        raise AlertError("the notice is empty")
    start = body.removeprefix(_BOM).lstrip()[:1]
    if start == b"{":
        return parse_gcn(body.removeprefix(_BOM), maps=maps)
    if start == b"<":
        return parse_voevent(body.removeprefix(_BOM).lstrip(), maps=maps)
    raise AlertError("the notice is neither a JSON object nor XML")
