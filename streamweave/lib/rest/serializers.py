"""Serializers that take exactly what they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db.backends.base.operations import BaseDatabaseOperations
from rest_framework import serializers

from streamweave.lib.rest.errors import as_field_errors


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses fields that it does not know or that are read-only, by name, instead of passing them over."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            writable = {name for name, field in self.fields.items() if not field.read_only}
            problems = {}
            for name in data.keys() - writable:
                if name == "csrfmiddlewaretoken":
                    continue  # the forms of the browsable API send it along
                problems[name] = ["This field cannot be set." if name in self.fields else "There is no such field."]
            if problems:
                raise serializers.ValidationError(problems)
        return super().to_internal_value(data)


class CountField(serializers.IntegerField):
    """How often something was."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"min_value": 0, "max_value": 2**31 - 1, **kwargs})


class BigCountField(serializers.IntegerField):
    """How many files or bytes, for which 32 bits do not suffice."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"min_value": 0, "max_value": 2**63 - 1, **kwargs})


class BoundedModelSerializer(serializers.ModelSerializer[Any]):
    """Whole numbers within the bounds of their columns. Those are PostgreSQL's on every database, so that all take the
    same numbers, and clients are told the same of them."""

    def build_standard_field(self, field_name: str, model_field: Any) -> tuple[Any, dict[str, Any]]:
        kind, kwargs = super().build_standard_field(field_name, model_field)
        if issubclass(kind, serializers.IntegerField):
            least, most = BaseDatabaseOperations.integer_field_ranges[model_field.get_internal_type()]
            kwargs["min_value"] = max(least, kwargs.get("min_value", least))
            kwargs["max_value"] = min(most, kwargs.get("max_value", most))
        return kind, kwargs

    def include_extra_kwargs(self, kwargs: Any, extra_kwargs: Any) -> Any:
        """The bounds of what is read-only are no longer checked, and still told."""
        bounds = {name: kwargs[name] for name in ("min_value", "max_value") if name in kwargs}
        return {**bounds, **super().include_extra_kwargs(kwargs, extra_kwargs)}


class StrictModelSerializer(StrictSerializer, BoundedModelSerializer):
    """The same over a model, whose own `clean` has the last word: its rules and its unique names hold here as well."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        model: type[Any] = self.Meta.model
        fields = model._meta.concrete_fields
        known = {} if self.instance is None else {f.attname: getattr(self.instance, f.attname) for f in fields}
        candidate = model(**known)
        candidate._state.adding = self.instance is None
        direct = {field.name for field in fields}
        for name, value in attrs.items():
            if name in direct:
                setattr(candidate, name, value)
        try:
            candidate.full_clean(validate_unique=True, validate_constraints=True)
        except DjangoValidationError as error:
            raise as_field_errors(error) from None
        return attrs
