"""Which set of templates a night is compared with."""

import os
import threading

from broker.imaging.templates import TemplateStore

_NIGHTS = ".nights"


class NightVersions:
    """Which set of templates a night uses: the latest when its first image came, then frozen.

    Kept in files beside the templates, so that every worker, and a query that is started again in
    the middle of a night, uses the same set.

    Parameters
    ----------
    templates : TemplateStore
        The sets.
    """

    def __init__(self, templates: TemplateStore) -> None:
        self._templates = templates
        self._versions: dict[str, str] = {}

    def version(self, night: str) -> str | None:
        """Return the version for a night, `YYYYMMDD`; None while there is no set at all."""
        if night not in self._versions:
            chosen = self._freeze(night)
            if chosen is None:
                return None
            self._versions[night] = chosen
        return self._versions[night]

    def _freeze(self, night: str) -> str | None:
        file = self._templates.path / _NIGHTS / night
        if not file.exists():
            latest = self._templates.latest()
            if latest is None:
                return None
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_name(f".{night}.{os.getpid()}.{threading.get_ident()}")
            draft.write_text(latest, encoding="utf-8")
            try:
                os.link(draft, file)  # the first one wins, whole
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return file.read_text(encoding="utf-8")
