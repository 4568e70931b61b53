"""What a live pipeline's class says about itself: which methods it has, and what their parameters are."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from ._parameters import validation_error
from .errors import PipelineDefinitionError

__all__ = ["calls", "check_method", "params_model", "validated"]


def validated(model: type[BaseModel] | None, params: dict[str, Any]) -> Any:
    """The parameters as the model they are annotated with, or as they are; raises `InvalidInput`."""
    if model is None:
        return params
    try:
        return model.model_validate(params)
    except ValidationError as error:
        raise validation_error(error) from None


def params_model(method: Callable[..., Any], names: dict[str, Any] | None) -> type[BaseModel] | None:
    """The model with which a method annotates its one parameter; raises NameError when it isn't there yet."""
    parameter = list(inspect.signature(method).parameters.values())[1]
    annotation = parameter.annotation
    if isinstance(annotation, str):
        # Only this annotation: others may name what is imported for type checkers alone.
        annotation = eval(annotation, getattr(method, "__globals__", {}), names or {})
    annotation = typing.get_origin(annotation) or annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def check_method(cls: type[Any], name: str, arguments: int) -> None:
    """Refuse a method that can't be called with so many arguments; raises `PipelineDefinitionError`."""
    method = inspect.getattr_static(cls, name)
    if not inspect.isfunction(method) or inspect.isgeneratorfunction(method):
        kind = "generator" if inspect.isfunction(method) else type(method).__name__
        raise PipelineDefinitionError(
            f"{cls.__name__}.{name} is a {kind}; write an ordinary method, or an async one."
        )
    try:
        inspect.signature(method).bind(None, *[None] * arguments)
    except TypeError as error:
        raise PipelineDefinitionError(
            f"{cls.__name__}.{name} can't be called with {arguments} argument(s) besides self: {error}."
        ) from None


def calls(cls: type[Any], base: type[Any], name: str) -> bool:
    """Whether a method of the class, or of one between it and `base`, mentions `name`."""

    def mentions(code: types.CodeType) -> bool:
        return name in code.co_names or any(
            mentions(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)
        )

    return any(
        inspect.isfunction(member) and mentions(member.__code__)
        for kind in cls.__mro__
        if issubclass(kind, base) and kind is not base
        for member in vars(kind).values()
    )
