"""Environment variables: where the services and the files of this machine are."""

import re
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.errors import ConfigError, ServiceError

CREDENTIALS = re.compile(r"://[^@\s?]*@")

_platform_database: Callable[[], str | None] | None = None


class Settings(BaseSettings):
    """Read from the environment once per process; secrets stay `SecretStr` until a connection is opened."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: project_root() / ".evertune", alias="EVERTUNE_HOME")
    given_database_url: SecretStr | None = Field(default=None, alias="EVERTUNE_DATABASE_URL")
    mlflow_tracking_uri: SecretStr | None = Field(default=None, alias="MLFLOW_TRACKING_URI")
    data_root: str | None = Field(default=None, alias="EVERTUNE_DATA_ROOT")
    cores: int | None = Field(default=None, ge=1, alias="EVERTUNE_CORES")
    given_tokens: SecretStr | None = Field(default=None, alias="EVERTUNE_SERVE_TOKENS")
    runtime: str = Field(default="local", alias="METAFLOW_RUNTIME_ENVIRONMENT")

    @field_validator("home")
    @classmethod
    def _is_absolute(cls, home: Path) -> Path:
        """A relative home starts at the project's root, so that it is one folder for all processes of a chain."""
        return project_root() / home

    @cached_property
    def database_url(self) -> SecretStr | None:
        """`EVERTUNE_DATABASE_URL`, else the platform's, asked for when it is needed; None: the embedded server's."""
        if self.given_database_url is not None:
            return self.given_database_url
        found = _platform_database() if _platform_database else None
        return SecretStr(found) if found else None

    def environment(self) -> dict[str, str]:
        """Variables by which a child process finds the same database; the address may hold a password."""
        return {"EVERTUNE_DATABASE_URL": self.database_url.get_secret_value()} if self.database_url else {}

    @property
    def serve_tokens(self) -> list[str]:
        """The bearer tokens that the model server takes; commas are between them."""
        given = self.given_tokens.get_secret_value() if self.given_tokens else ""
        return [token.strip() for token in given.split(",") if token.strip()]

    @property
    def remote(self) -> bool:
        """Whether this is a task of Metaflow in a container of a cluster, which is gone after it."""
        return self.runtime != "local"

    @property
    def datasets_uri(self) -> str:
        """Where dataset versions are kept: `EVERTUNE_DATA_ROOT`, else a folder of the home.

        Raises:
            ConfigError: there are credentials in it.
        """
        if self.data_root and CREDENTIALS.search(self.data_root):
            raise ConfigError(
                "EVERTUNE_DATA_ROOT must have no credentials in it, since it stands in manifests and logs; "
                "give them by the environment (AWS_ACCESS_KEY_ID, …) or a profile"
            )
        return self.data_root or str(self.home / "datasets")


def use_platform_database(find: Callable[[], str | None] | None) -> None:
    """Let `find` say where the database of this process is, unless EVERTUNE_DATABASE_URL does."""
    global _platform_database
    _platform_database = find


def make_folder(folder: Path) -> None:
    """Make a folder of the home.

    Raises:
        ServiceError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ServiceError(
            f"EVERTUNE_HOME must be a folder that can be written, but {folder}: {err.strerror}; set it to another one"
        ) from err


def project_root() -> Path:
    """The nearest folder from the working directory upwards that holds `obproject.toml`, else the working directory."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "obproject.toml").exists()), here)


@cache
def settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigError: an environment variable breaks a rule.
    """
    try:
        return Settings()
    except ValidationError as err:
        found = "; ".join(f"{e['loc'][0]}: {e['msg']}, but it is {e['input']!r}" for e in err.errors())
        raise ConfigError(f"environment: {found}; mend or unset it") from None
