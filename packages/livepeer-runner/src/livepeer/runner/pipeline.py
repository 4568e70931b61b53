"""`Pipeline`: a capability that answers a request, with a value or with a stream of events."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from ._definition import Definition, resolve_now_or_later
from ._signature import RunSignature
from .errors import PipelineDefinitionError

__all__ = ["Pipeline"]


class Pipeline(Definition):
    """A capability that answers a request.

    Define ``run``; its parameters are the input's fields and its annotations the schema::

        class Sentiment(Pipeline):
            def setup(self) -> None:
                self.model = load_model()

            def run(self, text: str) -> dict[str, str]:
                return {"label": self.model(text)}

    **Input.** Parameters become a pydantic model: unknown keys are refused, an undeclared ``model`` is
    dropped, ``bytes`` nested in JSON are base64. One `BaseModel` parameter is the whole body, by its own
    rules. One ``bytes``, `Blob` or ``PIL.Image.Image`` parameter takes the raw body; further ones then come
    from the query, or all of them from a JSON body (where one with a default is a field like the others).

    **Result.** A `BaseModel` or any JSON value is JSON, ``str`` is text, ``bytes`` and `Blob` are themselves,
    a PIL image is a PNG. A generator answers with server-sent events (`livepeer.runner.Event`). Raise
    `HTTPError` to answer with a status of your own.

    **Threads.** A synchronous ``run`` has a worker thread to itself, a generator keeps the same one, and at
    most ``capacity`` run at once. When the client goes away a generator is closed at its next ``yield``, an
    ``async`` run is cancelled, and a plain function runs to its end, unheard, holding its place.

    A base class without ``run`` is declared by ``class Base(Pipeline, abstract=True)``.

    Raises:
        PipelineDefinitionError: When the class is defined, for what no request could fill; the text says how
            to mend it.
    """

    _signature: ClassVar[RunSignature | None] = None

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Answer one request; to be defined with named, annotated parameters."""
        raise NotImplementedError

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        run = _run_of(cls)
        if run is None:
            if not abstract:
                raise PipelineDefinitionError(
                    f"{cls.__name__} has no run method, so it has nothing to answer with. Define "
                    f"run(self, …), or declare a base class: class {cls.__name__}(Pipeline, abstract=True)."
                )
            return
        if not abstract:
            cls.app_name()
        cls._signature = resolve_now_or_later(lambda names: RunSignature(cls.__name__, run, names), depth=2)

    @classmethod
    def signature(cls) -> RunSignature:
        """What ``run`` takes and gives back.

        Raises:
            PipelineDefinitionError: An annotation names something that is defined nowhere.
        """
        run = _run_of(cls)
        if run is None:
            raise PipelineDefinitionError(f"{cls.__name__} has no run method; define run(self, …).")
        if cls._signature is None:
            try:
                cls._signature = RunSignature(cls.__name__, run)
            except NameError as error:
                raise PipelineDefinitionError(
                    f"{cls.__name__}.run: {error}. Import what its annotations name at runtime, not "
                    "only under TYPE_CHECKING."
                ) from error
        return cls._signature


def _run_of(cls: type[Pipeline]) -> Any:
    run = inspect.getattr_static(cls, "run")
    if run is Pipeline.__dict__["run"]:
        return None
    if not inspect.isfunction(run):
        raise PipelineDefinitionError(
            f"{cls.__name__}.run is a {type(run).__name__}; write it as an ordinary method: def run(self, …)."
        )
    return run
