"""XML of strangers: no document types, so no entities, no external files; bounded in size."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from broker.errors import AlertError

_MOST_ELEMENTS = 20_000
_DEEPEST = 100


@dataclass
class Element:
    """An element: its name without namespace, attributes, children, and text of its own."""

    name: str
    namespace: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list["Element"] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Its text, without space around it."""
        return "".join(self.parts).strip()

    def all(self, name: str) -> Iterator["Element"]:
        """Yield it and what is inside it of a name, in the order of the document."""
        if self.name == name:
            yield self
        for child in self.children:
            yield from child.all(name)

    def first(self, name: str) -> "Element | None":
        """Return the first of `all`, None if there is none."""
        return next(self.all(name), None)


class _Builder:
    """Makes elements of what the parser finds."""

    def __init__(self, most_elements: int) -> None:
        self._most = most_elements
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > self._most or len(self._open) >= _DEEPEST:
            raise AlertError(
                f"the document has more than {self._most} elements, or {_DEEPEST} inside one "
                "another"
            )
        namespace, _, local = name.rpartition(" ")
        plain = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
        element = Element(local, namespace, plain)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def end(self, _name: str) -> None:
        self._open.pop()

    def text(self, data: str) -> None:
        if self._open:
            self._open[-1].parts.append(data)


def refuse_document_type(*_: object) -> None:
    """Refuse a document that declares a type, the only way to entities and external files.

    Raises
    ------
    AlertError
        Always.
    """
    raise AlertError("the document declares a type (DOCTYPE); that is not read")


def read_xml(body: bytes, *, most_elements: int = _MOST_ELEMENTS) -> Element:
    """Return the root of a document.

    Parameters
    ----------
    body : bytes
        The document, in an encoding that it says.
    most_elements : int
        With more it is refused.

    Raises
    ------
    AlertError
        If it is not well formed, declares a type, or is too large.
    """
    builder = _Builder(most_elements)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = refuse_document_type
    parser.EntityDeclHandler = refuse_document_type
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.text
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, LookupError, ValueError) as error:
        raise AlertError(f"the document is no XML: {error}") from error
    if builder.root is None:
        raise AlertError("the document has no element")
    return builder.root
