"""The parameters of ``run``: those that make up a JSON object, and the one that takes the raw body."""

from __future__ import annotations

import base64
import binascii
import inspect
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    create_model,
)
from pydantic.errors import PydanticUserError

from .blobs import Blob, decode_image, is_image_type
from .errors import InvalidInput, PipelineDefinitionError

__all__ = ["Parameters", "RawParameter", "Whole", "validation_error"]

_CONFIG = ConfigDict(
    extra="forbid", val_json_bytes="base64", ser_json_bytes="base64", protected_namespaces=()
)
_STANDARD = str.maketrans("-_", "+/")


@dataclass(frozen=True)
class Parameters:
    """A model made from parameters.

    Its fields are numbered and have the parameters' names as aliases, since a parameter may have a name
    that BaseModel uses itself (``json``, ``copy``, ``model_id``).
    """

    model: type[BaseModel]
    names: dict[str, str]

    @classmethod
    def make(cls, where: str, fields: dict[str, tuple[Any, Any]]) -> Parameters:
        """The model of these parameters; `fields` maps a name to its annotation and its default."""
        names = {f"p{index}": name for index, name in enumerate(fields)}
        try:
            definitions: dict[str, Any] = {
                safe: (Annotated[fields[name][0], Field(alias=name)], _default(fields[name][1]))
                for safe, name in names.items()
            }
            model: type[BaseModel] = create_model("Input", __config__=_CONFIG, **definitions)
        except (PydanticUserError, TypeError, AttributeError) as error:
            raise PipelineDefinitionError(
                f"{where}: an annotation is of no type that JSON can fill: {str(error).splitlines()[0]} "
                "Use JSON types (str, int, list[…], dict[…]), a BaseModel, or one bytes or PIL.Image.Image."
            ) from error
        return cls(model, names)

    def from_json(self, content: bytes) -> dict[str, Any]:
        """The arguments in a JSON object; raises `InvalidInput`."""
        return self._arguments(lambda: self.model.model_validate_json(content))

    def from_values(self, values: dict[str, str]) -> dict[str, Any]:
        """The arguments in the texts of a query; raises `InvalidInput`."""
        return self._arguments(lambda: self.model.model_validate(values))

    def _arguments(self, validate: typing.Callable[[], BaseModel]) -> dict[str, Any]:
        try:
            instance = validate()
        except ValidationError as error:
            raise validation_error(error) from None
        return {name: getattr(instance, safe) for safe, name in self.names.items()}


def _default(value: Any) -> Any:
    return ... if value is inspect.Parameter.empty else value


@dataclass(frozen=True)
class Whole:
    """The one parameter that is a BaseModel, and so the whole body."""

    name: str
    model: type[BaseModel]

    @classmethod
    def of(cls, fields: dict[str, tuple[Any, Any]]) -> Whole | None:
        """The whole body, when these fields are one model."""
        if len(fields) == 1:
            ((name, (annotation, _)),) = fields.items()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                return cls(name, annotation)
        return None

    def from_json(self, content: bytes) -> dict[str, Any]:
        """The argument in a JSON body; raises `InvalidInput`."""
        try:
            return {self.name: self.model.model_validate_json(content)}
        except ValidationError as error:
            raise validation_error(error) from None


@dataclass(frozen=True)
class RawParameter:
    """The parameter that takes the body as it is: ``bytes``, a `Blob`, or an image."""

    name: str
    type: type[Any]
    required: bool

    @classmethod
    def of(cls, where: str, parameter: inspect.Parameter, annotation: Any) -> RawParameter | None:
        """The raw parameter that this one is, if it is one."""
        if isinstance(annotation, types.ModuleType) and annotation.__name__ == "PIL.Image":
            raise PipelineDefinitionError(
                f"{where}: parameter {parameter.name!r} is annotated with the module PIL.Image. "
                "Write the class: Image.Image."
            )
        optional = False
        if typing.get_origin(annotation) in (typing.Union, types.UnionType):
            choices = [choice for choice in typing.get_args(annotation) if choice is not type(None)]
            optional = len(choices) < len(typing.get_args(annotation))
            annotation = choices[0] if len(choices) == 1 else None
        if not isinstance(annotation, type):
            return None
        if not is_image_type(annotation) and not issubclass(annotation, bytes | bytearray):
            return None
        required = not optional and parameter.default is inspect.Parameter.empty
        if optional and parameter.default is inspect.Parameter.empty:
            raise PipelineDefinitionError(
                f"{where}: parameter {parameter.name!r} may be None but has no default. Write = None."
            )
        return cls(parameter.name, annotation, required)

    @property
    def image(self) -> bool:
        """Whether it is a Pillow image."""
        return is_image_type(self.type)

    @property
    def accepts(self) -> str:
        """The content type of the body."""
        return "image/*" if self.image else "application/octet-stream"

    @property
    def nested(self) -> Any:
        """Its annotation inside a JSON object: base64 text, decoded to the parameter's type."""
        schema = {"type": "string", "format": "base64"}
        if self.image:
            schema["contentMediaType"] = "image/*"
        kind: Any = Any if self.required else (Any | None)
        return Annotated[kind, PlainValidator(self._from_base64), WithJsonSchema(schema)]

    def decode(self, body: bytes, content_type: str | None) -> Any:
        """The argument in a body; raises `InvalidInput` when it is an image that can't be read."""
        if self.image:
            if not body:
                raise InvalidInput(f"The body is empty; {self.name!r} takes an image as the body.")
            return decode_image(body)
        if issubclass(self.type, Blob):
            return self.type(body, content_type or "application/octet-stream")
        return self.type(body)

    def _from_base64(self, value: Any) -> Any:
        if value is None and not self.required:
            return None
        if not isinstance(value, str):
            raise ValueError("should be base64 text")
        try:
            data = base64.b64decode(value.translate(_STANDARD), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("should be base64 text") from None
        try:
            return self.decode(data, None)
        except InvalidInput as error:
            raise ValueError(error.message.replace("The body", "it")) from None


def validation_error(error: ValidationError) -> InvalidInput:
    """pydantic's complaint as an answer: each field by its path, without the value (it may be secret)."""
    fields = []
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join(str(part) for part in detail["loc"]) or "body"
        message = detail["msg"].removeprefix("Value error, ").rstrip(".")
        fields.append({"field": path, "message": message, "type": detail["type"]})
    text = "; ".join(f"{field['field']}: {field['message']}" for field in fields[:5])
    more = f"; and {len(fields) - 5} more" if len(fields) > 5 else ""
    return InvalidInput(f"The input is not what this capability takes: {text}{more}.", fields)
