"""What a subscriber should know of a topic beside its packets: when it ends, how to cite it."""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from broker import __version__
from broker.errors import ConfigError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True)
class Deprecation:
    """The announced end of a topic.

    Parameters
    ----------
    topic : str
    ends : str
        The last day, `YYYY-MM-DD` (UTC).
    why : str
        One sentence.
    instead : str
        The topic that takes its place; empty if none does.
    """

    topic: str
    ends: str
    why: str
    instead: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.topic):
            raise ConfigError(f"{self.topic!r} is no topic's name")
        if not _DAY.fullmatch(self.ends):
            raise ConfigError(f"{self.ends!r} is no day: write YYYY-MM-DD")

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        instead = f" Use {self.instead} instead." if self.instead else ""
        return f"It ends on {self.ends}: {self.why}{instead}"


def announce(folder: Path, one: Deprecation) -> Path:
    """Keep the announcement of a topic's end; it replaces an older one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{one.topic}.toml"
    fields = {name: getattr(one, name) for name in Deprecation.__dataclass_fields__}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in fields.items())
    path.write_text(text, encoding="utf-8")
    return path


def withdraw(folder: Path, topic: str) -> bool:
    """Take an announcement back; return whether there was one."""
    path = folder / f"{topic}.toml"
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


def deprecation(folder: Path, topic: str) -> Deprecation | None:
    """Return the announced end of a topic; None if there is none."""
    path = folder / f"{topic}.toml"
    if not path.exists():
        return None
    try:
        return Deprecation(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is no announcement: {error}") from error


def citation(topic: str, run: str, modules: tuple[str, ...]) -> str:
    """Return how to cite alerts of a topic: what is needed to get the same again."""
    used = f", modules {', '.join(modules)}" if modules else ""
    return (
        f"Alerts of topic {topic} (run {run}) of nightjar-broker {__version__}{used}; cite the "
        "surveys whose alerts you use as they ask, and give the nights and diaSourceIds."
    )
