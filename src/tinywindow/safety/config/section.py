"""A section of the configuration: fields from code, environment, file and defaults, in that order.

Everything that is wrong comes out as one `ConfigurationError`, a sentence for each violation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from tinywindow.safety.config.layers import Layers, current_layers, using
from tinywindow.safety.domain.text import shown
from tinywindow.safety.environment import nearest
from tinywindow.safety.errors import ConfigurationError

__all__ = ["Explained", "Section"]

GIVEN: Final = "given directly"
DEFAULT: Final = "default"
_PYDANTIC_PREFIX: Final = "Value error, "


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting as it is in force: its name, its value, and where that came from."""

    name: str
    value: object
    origin: str


class _LayeredSource(PydanticBaseSettingsSource):
    """Gives what the layers know of a section and stronger sources did not say."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Look one field up."""
        del field
        section = self.settings_cls.section  # type: ignore[attr-defined]
        found = current_layers().find(section, field_name)
        return (None if found is None else found.value), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Look every field up that no stronger source has set."""
        section = self.settings_cls.section  # type: ignore[attr-defined]
        layers = current_layers()
        values = {}
        for name in self.settings_cls.model_fields:
            found = layers.find(section, name)
            if found is not None and name not in self.current_state:
                values[name] = found.value
        return values


class Section(BaseSettings):
    """The base of every section; immutable once made."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    section: ClassVar[str | None] = None
    secrets: ClassVar[frozenset[str]] = frozenset()
    """Fields whose values are never shown."""

    def __init__(self, **values: Any) -> None:  # noqa: ANN401 - pydantic's own signature
        """Read the section; see the class for its fields.

        Raises:
            ConfigurationError: with every violation at once, those of the environment's and the
                file's names included.
        """
        layers = current_layers()
        violations = list(layers.violations)
        try:
            with using(layers):
                super().__init__(**values)
        except ValidationError as error:
            violations.extend(self._sentences(error, values, layers))
        if violations:
            raise ConfigurationError(violations)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What code says, then the layers; pydantic's own sources are not used."""
        del env_settings, dotenv_settings, file_secret_settings
        return init_settings, _LayeredSource(settings_cls)

    @classmethod
    def _sentences(
        cls, error: ValidationError, values: Mapping[str, object], layers: Layers
    ) -> list[str]:
        sentences = []
        for fault in error.errors(include_url=False, include_context=False):
            name = str(fault["loc"][0]) if fault["loc"] else ""
            if fault["type"] == "extra_forbidden":
                found = nearest(name, cls.model_fields)
                hint = "" if found is None else f"; the nearest known one is {found}"
                sentences.append(f"{cls.label(shown(name)[1:-1])}: no such field{hint}")
                continue
            message = fault["msg"].removeprefix(_PYDANTIC_PREFIX)
            value, origin = cls._origin(name, values, layers)
            quoted = "the value" if name in cls.secrets else shown(value)
            suffix = "" if origin in {GIVEN, DEFAULT} else f" ({origin})"
            sentences.append(f"{cls.label(name)}: {quoted} {message}{suffix}")
        return sentences

    @classmethod
    def label(cls, name: str) -> str:
        """A field's name with its section's."""
        return name if cls.section is None else f"{cls.section}.{name}"

    @classmethod
    def _origin(cls, name: str, values: Mapping[str, object], layers: Layers) -> tuple[object, str]:
        if name in values:
            return values[name], GIVEN
        found = layers.find(cls.section, name)
        if found is not None:
            return found.value, found.origin
        return None, DEFAULT

    def named(self, name: str) -> bool:
        """Whether anybody said what a field is to be; the default where not."""
        return name in self.model_fields_set

    def explain(self, layers: Layers, *, given: frozenset[str] = frozenset()) -> list[Explained]:
        """Each field with its value and where it came from; secrets are left out.

        `layers` are those that the section was read from, `given` what came before them.
        """
        rows = []
        for name in type(self).model_fields:
            found = layers.find(self.section, name)
            origin = DEFAULT if found is None else found.origin
            if name in given or (found is None and name in self.model_fields_set):
                origin = GIVEN
            value = "(set)" if name in self.secrets and getattr(self, name) else getattr(self, name)
            rows.append(Explained(self.label(name), value, origin))
        return rows

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some fields changed, checked like any other."""
        del deep
        fields = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**fields, **(update or {})})
