"""What ``run`` takes, as a pydantic model or the raw body; mistakes are found when the class is defined."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

from pydantic_core import from_json, to_json

from ._parameters import Parameters, RawParameter, Whole
from .errors import InvalidInput, PipelineDefinitionError
from .schema import JsonSchema, model_schema, output_schema

__all__ = ["RunSignature"]


class RunSignature:
    """The parameters and the result of one pipeline class's ``run``.

    Args:
        owner: The name of the class, for messages.
        run: The function, whose first parameter is ``self``.
        names: Where annotations that are text look names up besides the function's module.

    Raises:
        PipelineDefinitionError: A parameter can't be filled from a request; the text says how to mend it.
        NameError: An annotation that is text names something that isn't defined (yet).
    """

    def __init__(self, owner: str, run: Callable[..., Any], names: dict[str, Any] | None = None) -> None:
        where = f"{owner}.run"
        try:
            hints = typing.get_type_hints(run, localns=names, include_extras=True)
        except (TypeError, SyntaxError) as error:
            raise PipelineDefinitionError(f"{where}: an annotation is not a type: {error}") from error
        parameters = list(inspect.signature(run).parameters.values())[1:]
        raw: RawParameter | None = None
        fields: dict[str, tuple[Any, Any]] = {}
        for parameter in parameters:
            _check(where, parameter)
            annotation = hints[parameter.name]
            found = RawParameter.of(where, parameter, annotation)
            fields[parameter.name] = (found.nested if found else annotation, parameter.default)
            if found is None or not (found.required or len(parameters) == 1):
                continue
            if raw:
                raise PipelineDefinitionError(
                    f"{where} has two parameters that take the raw body, {raw.name!r} and {found.name!r}; a "
                    "request has one body. Keep one of them, or take a BaseModel with Base64Bytes fields."
                )
            raw = found
        self._raw = raw
        self._body = Whole.of(fields) or Parameters.make(where, fields)
        others = {name: field for name, field in fields.items() if raw is None or name != raw.name}
        self._others = Parameters.make(where, others) if raw and others else None
        self.output: JsonSchema
        self.returns: str | None
        self.output, self.returns = output_schema(
            hints.get("return", inspect.Parameter.empty),
            stream=inspect.isgeneratorfunction(run) or inspect.isasyncgenfunction(run),
        )
        self.streams: bool = self.returns == "text/event-stream"

    @property
    def input(self) -> JsonSchema:
        """The JSON Schema of the input: of the JSON body, or of the raw one when that is all there is."""
        if self._raw and not self._others:
            return {"type": "string", "format": "binary", "contentMediaType": self._raw.accepts}
        return model_schema(self._body.model)

    @property
    def accepts(self) -> list[str]:
        """The content types of the body, the preferred one first."""
        if self._raw is None:
            return ["application/json"]
        return [self._raw.accepts, "application/json"] if self._takes_object else [self._raw.accepts]

    @property
    def decodes_images(self) -> bool:
        """Whether binding decodes an image, which is too slow for the event loop."""
        return self._raw is not None and self._raw.image

    @property
    def _takes_object(self) -> bool:
        return self._raw is None or self._raw.image or self._others is not None

    def bind(
        self, body: bytes, content_type: str | None = None, query: Iterable[tuple[str, str]] = ()
    ) -> dict[str, Any]:
        """The arguments of ``run`` for a request.

        A raw parameter takes the body, and then the others come from the query. When the body is JSON and
        there are others (or the parameter is an image), it is an object that holds the raw one as base64.

        Raises:
            InvalidInput: Naming each field that is wrong.
        """
        raw = self._raw
        kind = (content_type or "").split(";")[0].strip().lower()
        is_json = kind == "application/json" or kind.endswith("+json")
        if raw is None or (is_json and self._takes_object):
            return self._from_json(body)
        arguments = {} if not body and not raw.required else {raw.name: raw.decode(body, content_type)}
        if self._others:
            known = self._others.names.values()
            arguments.update(self._others.from_values({key: item for key, item in query if key in known}))
        return arguments

    def _from_json(self, body: bytes) -> dict[str, Any]:
        content = self._without_model(body.strip() or b"{}")
        if content[:1] != b"{" and isinstance(self._body, Parameters):
            _refuse_non_object(content, list(self._body.names.values()))
        return self._body.from_json(content)

    def _without_model(self, body: bytes) -> bytes:
        """Drop an undeclared ``model`` key: clients put the model's name there to choose a runner."""
        if b'"model"' not in body or self._declares_model():
            return body
        try:
            content = from_json(body)
        except ValueError:
            return body  # validation says what is wrong with it
        if not isinstance(content, dict) or "model" not in content:
            return body
        del content["model"]
        return to_json(content)

    def _declares_model(self) -> bool:
        model = self._body.model
        return model.model_config.get("extra") == "allow" or any(
            "model" in (name, field.alias, field.validation_alias)
            for name, field in model.model_fields.items()
        )


def _refuse_non_object(content: bytes, names: list[str]) -> typing.NoReturn:
    listed = ", ".join(names) or "no fields"
    try:
        found = {"[": "list", '"': "string"}.get(chr(content[0]), type(from_json(content)).__name__)
    except ValueError as error:
        raise InvalidInput(
            f"The body is not JSON ({error}); it should be an object with: {listed}."
        ) from None
    raise InvalidInput(f"The body is a JSON {found}; it should be an object with: {listed}.")


def _check(where: str, parameter: inspect.Parameter) -> None:
    name = parameter.name
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        raise PipelineDefinitionError(
            f"{where} takes *{name}, which no request can fill. Name each parameter, or take a list: "
            f"{name}: list[str]."
        )
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
        raise PipelineDefinitionError(
            f"{where} takes **{name}, so its input has no schema. Name each parameter, or take one BaseModel "
            'with model_config = ConfigDict(extra="allow").'
        )
    if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
        raise PipelineDefinitionError(
            f"{where}: parameter {name!r} is positional-only, but arguments go by name. Remove the '/'."
        )
    if parameter.annotation is inspect.Parameter.empty:
        raise PipelineDefinitionError(
            f"{where}: parameter {name!r} has no annotation, so its input can't be checked. "
            f"Write its type, {name}: str for instance."
        )
