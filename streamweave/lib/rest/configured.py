"""Serializers of what administrators set up: rows of a SoftDeletedModel."""

from __future__ import annotations

from copy import copy
from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from rest_framework import serializers

from streamweave.lib.models import SoftDeletedModel, refuse_taken_name
from streamweave.lib.rest.errors import as_field_errors
from streamweave.lib.rest.serializers import StrictModelSerializer
from streamweave.lib.secrets import Sealed


class Reference(serializers.PrimaryKeyRelatedField[Any]):
    """The id of another row; `queryset` says which may be named."""

    default_error_messages = {"does_not_exist": "There is none with the id {pk_value}, or it is deleted."}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(pk_field=serializers.UUIDField(), **kwargs)


class ConfiguredSerializer(StrictModelSerializer):
    """What the model's own `clean` says of a field holds here as well, under the name that the field has here.

    A text that is left empty is null where the model allows it. A secret that nobody changes stays sealed.
    """

    id = serializers.UUIDField(read_only=True)
    created_at = serializers.DateTimeField(read_only=True)
    updated_at = serializers.DateTimeField(read_only=True)
    deleted_at = serializers.DateTimeField(read_only=True, allow_null=True)

    class Meta:
        model: type[SoftDeletedModel]
        fields: tuple[str, ...]
        validators: list[Any] = []  # DRF's own leave out what a constraint's condition says

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        candidate = self.Meta.model() if self.instance is None else copy(self.instance)
        unchecked = set()
        for field in candidate._meta.concrete_fields:
            if field.name in attrs:
                if attrs[field.name] == "" and field.null:
                    attrs[field.name] = None
                setattr(candidate, field.name, attrs[field.name])
            elif not field.editable or isinstance(candidate.__dict__.get(field.attname), Sealed):
                unchecked.add(field.name)
        try:
            candidate.full_clean(exclude=unchecked)
        except DjangoValidationError as error:
            raise serializers.ValidationError(self._by_our_names(as_field_errors(error).detail)) from None
        return attrs

    def _by_our_names(self, problems: Any) -> dict[str, Any]:
        ours = {field.source: name for name, field in self.fields.items()}
        return {ours.get(name, name): text for name, text in problems.items()}


class NamedSerializer(ConfiguredSerializer):
    """The same for rows whose names are unique among those that are not deleted."""

    def validate_name(self, name: str) -> str:
        refuse_taken_name(self.instance or self.Meta.model(), name)
        return name
