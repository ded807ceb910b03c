"""The hooks that come with the product. A new one is a module here, a line in the table, and a test."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from hooks.builtins.access_assignment import AccessAssignment
from hooks.builtins.base import AcceptRule, Builtin, ConfigError, EnrichRule, GrantRule
from hooks.builtins.file_filter import FileFilter
from hooks.builtins.metadata_enrichment import MetadataEnrichment
from hooks.builtins.redirect import Redirect

BUILTINS: Mapping[str, type[Builtin]] = MappingProxyType(
    {
        "file_filter": FileFilter,
        "redirect": Redirect,
        "metadata_enrichment": MetadataEnrichment,
        "access_assignment": AccessAssignment,
    }
)

__all__ = ["BUILTINS", "AcceptRule", "Builtin", "ConfigError", "EnrichRule", "GrantRule"]
