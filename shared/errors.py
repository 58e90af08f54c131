"""Errors that teach: each message says the rule, the value that broke it, and the remedy."""


class EvertuneError(Exception):
    """Base of every error that Evertune raises on purpose."""


class ConfigError(EvertuneError):
    """A config, an override or an environment variable breaks a rule."""


class DataError(EvertuneError):
    """A data source can't be read, or its rows can't be learned from."""


class ObjectiveError(EvertuneError):
    """An objective file breaks the objective contract."""


class StudyFailed(EvertuneError):
    """A study ended without one finished trial."""


class ServiceError(EvertuneError):
    """PostgreSQL or MLflow can't be started or reached."""


class RegistryError(EvertuneError):
    """A model can't be saved, registered, loaded or promoted."""


class UnloadableModelError(RegistryError):
    """A registered model's files can't be loaded without running what is in them, or by this version of Evertune."""


class UnrecordedModelError(UnloadableModelError):
    """A registered model's files aren't on record, so that nobody knows whether they are those that were registered."""


class ChangedModelError(UnloadableModelError):
    """A registered model's files aren't those that were registered."""


class FlowError(EvertuneError):
    """A flow of the chain can't start, or failed."""


class ResultTaken(EvertuneError):
    """A study's result is made by another run, `run`; None where the study is gone. No failure: this run is done."""

    def __init__(self, message: str, run: str | None) -> None:
        super().__init__(message)
        self.run = run
