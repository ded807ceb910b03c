"""Serializers that take exactly what they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
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


class StrictModelSerializer(StrictSerializer, serializers.ModelSerializer[Any]):
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
