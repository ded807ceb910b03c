"""Whether a hook's config can be used, and if not, which field of it and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jsonschema
from django.core.exceptions import ValidationError

from hooks.builtins import BUILTINS, ConfigError
from hooks.text import storable, why_not_json

BUILTIN = "builtin"
PYTHON_SCRIPT = "python_script"
HTTP_WEBHOOK = "http_webhook"

MAX_CONFIG_BYTES = 65536
MAX_ERRORS = 20
FREE_FORM_SCHEMA: Mapping[str, Any] = {
    "title": "Config",
    "description": "Handed on to the script or receiver as it is.",
    "type": "object",
}


def config_schema(implementation: str, builtin_name: str | None) -> Mapping[str, Any]:
    """The JSON schema (Draft 2020-12) of the config of such a hook. Raises KeyError where there is no such builtin."""
    return BUILTINS[builtin_name or ""].config_schema if implementation == BUILTIN else FREE_FORM_SCHEMA


def validate_config(implementation: str, builtin_name: str | None, config: Any) -> None:
    """Raises ValidationError with a message per field that is wrong, all under the key `config`.

    A config of None is right for every hook: the builtin then does nothing.
    """
    if config is None:
        return
    if implementation == BUILTIN and builtin_name not in BUILTINS:
        raise ValidationError({"builtin_name": unknown_builtin(builtin_name)})
    why = why_not_json(config, MAX_CONFIG_BYTES)
    if why:
        raise ValidationError({"config": f"The config cannot be kept: {why}."})
    wrong = _schema_errors(config_schema(implementation, builtin_name), config)
    if not wrong and implementation == BUILTIN:
        try:
            BUILTINS[builtin_name or ""](config)
        except ConfigError as error:
            wrong = [storable(str(error))]
    if wrong:
        raise ValidationError({"config": wrong})


def unknown_builtin(name: str | None) -> str:
    return f"“{name or ''}” is no builtin; use one of {', '.join(BUILTINS)}."


def schema_error(schema: Mapping[str, Any], value: Any) -> str | None:
    """What is wrong with `value` first of all, beginning with the path of the field; None if nothing is."""
    return next(iter(_schema_errors(schema, value)), None)


def _schema_errors(schema: Mapping[str, Any], value: Any) -> list[str]:
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(value), key=lambda error: error.json_path)
    return [_message(error) for error in errors[:MAX_ERRORS]]


def _message(error: jsonschema.ValidationError) -> str:
    field = error.json_path.removeprefix("$").removeprefix(".")
    return storable(f"{field}: {error.message}" if field else error.message, 500)
