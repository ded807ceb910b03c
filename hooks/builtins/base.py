"""What a builtin is: a class that declares its config, is made from a valid one, and then decides about single files.

A builtin subclasses one of the three rules below, which say where on the way of a file it is asked. It touches nothing:
it gets facts and returns decisions. What it raises while it decides counts as its failure for that file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from hooks.decisions import AfterTransfer, BeforeTransfer, GrantRequest
from hooks.facts import FileFacts
from hooks.patterns import Glob, PatternError, Regex

PRE_TRANSFER = "pre_transfer"
POST_TRANSFER = "post_transfer"


class ConfigError(ValueError):
    """A config that its schema allows and that still makes no sense; `field` is the path of what is wrong."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")


class Builtin(ABC):
    trigger: ClassVar[str]
    config_schema: ClassVar[Mapping[str, Any]]
    """JSON schema (Draft 2020-12) of the config, with titles and descriptions for forms."""

    @abstractmethod
    def __init__(self, config: Mapping[str, Any]) -> None:
        """Made from a config that `config_schema` allows. Raises ConfigError for what a schema cannot say."""

    @classmethod
    def reads_content(cls, config: Any) -> bool:
        """Whether, with this config, which need not be valid, it may ask for the first bytes of a file."""
        return False


class AcceptRule(Builtin):
    """Asked before a file is carried: take it, skip it, put it elsewhere?"""

    trigger = PRE_TRANSFER

    @abstractmethod
    def before_transfer(self, file: FileFacts) -> BeforeTransfer: ...


class EnrichRule(Builtin):
    """Asked once per version after its copy is verified: what do path and content tell?"""

    trigger = POST_TRANSFER

    @classmethod
    def reads_content(cls, config: Any) -> bool:
        return True

    @abstractmethod
    def metadata(self, file: FileFacts) -> dict[str, Any]: ...

    def after_transfer(self, file: FileFacts) -> AfterTransfer:
        return AfterTransfer(metadata=self.metadata(file))


class GrantRule(Builtin):
    """Asked when the metadata is complete: who is to see the file?"""

    trigger = POST_TRANSFER

    @abstractmethod
    def grants(self, file: FileFacts) -> Sequence[GrantRequest]: ...

    def after_transfer(self, file: FileFacts) -> AfterTransfer:
        return AfterTransfer(grants=tuple(self.grants(file)))


def glob(pattern: str, field: str) -> Glob:
    try:
        return Glob(pattern)
    except PatternError as error:
        raise ConfigError(field, f"“{pattern}” cannot be used: {error}") from None


def globs(config: Mapping[str, Any], key: str, where: str = "") -> tuple[Glob, ...]:
    """The patterns of `config[key]`, none if it is absent. `where` is the path of `config` itself, for messages."""
    return tuple(glob(pattern, f"{where}{key}[{index}]") for index, pattern in enumerate(config.get(key, ())))


def regex(pattern: str, field: str) -> Regex:
    try:
        return Regex(pattern)
    except PatternError as error:
        raise ConfigError(field, f"“{pattern}” cannot be used: {error}") from None
