"""The settings of a pillow's pipeline: filter, trigger, transform, attachments, tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from pillows.options import Options, Size
from pillows.stages.declarative import ChildRows
from pillows.stages.document_paths import check_paths, getter, split

_FUNCTION = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"


class FilterOptions(Options):
    """The filter that chooses a pillow's documents: a python function or a JMESPath expression.

    Attributes:
        python: `module:function`; gets the document.
        name: name of a registered function, instead of `python`.
        args: keyword arguments for that function; a class is made with them once.
        jmespath: an expression over `{id, rev, revs, deleted, doc}`.
        needs_document: false if the function needs only the change; it then runs before the fetch.
    """

    kind: ClassVar[str] = "filter"

    python: str | None = Field(default=None, pattern=_FUNCTION)
    name: str | None = None
    args: Mapping[str, Any] = {}
    jmespath: str | None = None
    needs_document: bool = True

    @field_validator("jmespath")
    @classmethod
    def _compiles(cls, expression: str | None) -> str | None:
        try:
            if expression is not None:
                jmespath.compile(expression)
        except (JMESPathError, ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"is not valid JMESPath ({reason}); see https://jmespath.org") from error
        return expression

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if sum(each is not None for each in (self.python, self.name, self.jmespath)) != 1:
            raise ValueError("needs one of `python`, `name` and `jmespath`; give exactly one")
        if self.args and self.jmespath is not None:
            raise ValueError("has `args`, which only a python function takes; remove them")
        return self


class TriggerOptions(Options):
    """The trigger that takes a document out of a change: a python function.

    Attributes:
        python: `module:function`; gets the change and a function that reads its document, and returns the
            document, or None if there is none.
        name: name of a registered function, instead of `python`.
        args: keyword arguments for that function; a class is made with them once.
    """

    kind: ClassVar[str] = "trigger"

    python: str | None = Field(default=None, pattern=_FUNCTION)
    name: str | None = None
    args: Mapping[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.python is None) == (self.name is None):
            raise ValueError("needs one of `python` and `name`; give exactly one")
        return self


TypeName = Literal["integer", "number", "text", "boolean", "date", "timestamp", "json"]


class StepOptions(Options):
    """One step of a transform: a python function, or a declarative step of the other keys.

    Attributes:
        python: `module:function`; gets the document, returns its rows.
        name: name of a registered function, instead of `python`.
        args: keyword arguments for that function; a class is made with them once.
        chunk: most documents per call; the function then gets a list, and returns a list of results.
        pick: names or dotted paths to keep; all by default.
        drop: names or dotted paths to leave out.
        redact: name or dotted path -> the replacement of the value.
        rename: name or dotted path -> new name.
        set: name -> constant.
        compute: name -> path or JMESPath over the document.
        types: name or dotted path -> the type to convert to.
        rows: output -> its rows from an array; see `ChildRows`.
    """

    kind: ClassVar[str] = "transform"

    python: str | None = Field(default=None, pattern=_FUNCTION)
    name: str | None = None
    args: Mapping[str, Any] = {}
    chunk: int | None = Field(default=None, ge=1, le=100_000)
    pick: tuple[str, ...] | None = None
    drop: tuple[str, ...] = ()
    redact: Mapping[str, Any] = {}
    rename: Mapping[str, str] = {}
    set: Mapping[str, Any] = {}
    compute: Mapping[str, str] = {}
    types: Mapping[str, TypeName] = {}
    rows: Mapping[str, ChildRows] = {}

    @property
    def is_python(self) -> bool:
        """Whether the step calls a function."""
        return self.python is not None or self.name is not None

    @property
    def declared(self) -> dict[str, Any]:
        """The keys of a declarative step that are set."""
        known = ("pick", "drop", "redact", "rename", "set", "compute", "types", "rows")
        values = {key: getattr(self, key) for key in known}
        return {key: value for key, value in values.items() if value is not None and value not in ((), {})}

    @field_validator("pick", "drop")
    @classmethod
    def _dotted(cls, paths: tuple[str, ...] | None) -> tuple[str, ...] | None:
        check_paths(paths or (), split)
        return paths

    @field_validator("redact", "rename", "compute", "types")
    @classmethod
    def _dotted_names(cls, values: Mapping[str, Any]) -> Mapping[str, Any]:
        check_paths(values, split)
        return values

    @field_validator("rename")
    @classmethod
    def _to_names(cls, values: Mapping[str, str]) -> Mapping[str, str]:
        check_paths(values.values(), split)
        return values

    @field_validator("compute")
    @classmethod
    def _paths(cls, values: Mapping[str, str]) -> Mapping[str, str]:
        check_paths(values.values(), getter)
        return values

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.python is not None and self.name is not None:
            raise ValueError("has both `python` and `name`; give one")
        if self.is_python and self.declared:
            raise ValueError(
                f"has both `{next(iter(self.declared))}` and a function; make them two steps of a list"
            )
        if not self.is_python and (self.args or self.chunk):
            raise ValueError("has `args` or `chunk` without a function; add `python:`")
        if not self.is_python and not self.declared:
            raise ValueError("has no effect; write `python:`, or a key such as `pick:`")
        return self


def _steps_tag(value: object) -> str:
    return "list" if isinstance(value, list | tuple) else "StepOptions"


#: One step, or a list of them.
Steps = Annotated[
    Annotated[StepOptions, Tag("StepOptions")] | Annotated[tuple[StepOptions, ...], Tag("list")],
    Discriminator(_steps_tag),
]


class AttachmentOptions(Options):
    """The content of a document's `_attachments`.

    Attributes:
        fetch: fetch each attachment's `data` in base64; otherwise they are stubs, as CouchDB lists them.
        max_size: largest attachment that is fetched; a larger one stays a stub.
    """

    fetch: bool = False
    max_size: Size = Field(default=2**20, gt=0)


def _rows_tag(value: object) -> str:
    return "mapping" if isinstance(value, Mapping) else "list"


Row = Mapping[str, Any]


class ChangeOptions(Options):
    """The change that the feed delivers with the document of a test.

    Attributes:
        revs: the leaf revisions, the winner first; the document's `_rev` by default.
        deleted: whether the document is deleted; its `_deleted` by default.
    """

    revs: tuple[str, ...] = ()
    deleted: bool | None = None


class CaseOptions(Options):
    """A test of the pillow for `pillowd check`: a document and its expected rows.

    Attributes:
        name: title of the test.
        doc: the document; `_id`, `_rev` and `_deleted` as in CouchDB.
        change: the change that comes with it, for a filter that reads it; see `ChangeOptions`.
        rows: output -> its expected rows; a list is for the first output. Empty if the filter drops the
            document.
    """

    name: str = ""
    doc: Mapping[str, Any]
    change: ChangeOptions = ChangeOptions()
    rows: Annotated[
        Annotated[tuple[Row, ...], Tag("list")] | Annotated[Mapping[str, tuple[Row, ...]], Tag("mapping")],
        Discriminator(_rows_tag),
    ] = ()


#: A part of a pipeline that may call a function.
FunctionOptions = FilterOptions | TriggerOptions | StepOptions
