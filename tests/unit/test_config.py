"""A config is parsed once; what breaks a rule is refused with file, key, value, rule and remedy."""

import json
from pathlib import Path

import pytest

from shared.config import load_use_case, parse_use_case, use_cases
from shared.domain import StrategySpec
from shared.errors import ConfigError

SHIPPED = ["breast_cancer", "diabetes", "digits", "fashion_mnist"]


def test_every_shipped_config_is_valid() -> None:
    assert use_cases() == SHIPPED
    assert [load_use_case(name).name for name in SHIPPED] == SHIPPED


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("classical.n_trails=3", ["--set: `classical.n_trails`", "mean 'n_trials'", "max_failures"]),
        ("clasical.n_trials=3", ["--set: `clasical`", "did you mean 'classical'"]),
        ("tuning.metric=auc", ["--set: `tuning.metric`", "'auc'", "did you mean 'roc_auc'", "evertune config metrics"]),
        ("classical.n_trials=abc", ["`classical.n_trials`", "valid integer", "'abc'"]),
        ("classical.n_trials=0", ["`classical.n_trials`", "greater than or equal to 1", "0"]),
        ("data.holdout=2", ["`data.holdout`", "less than 1", "2"]),
        ("compute.classical.gpux=1", ["`compute.classical.gpux`", "did you mean 'gpu'"]),
        ("schedule.cron=a b c d e", ["`schedule.cron`", "minute hour day month weekday", "'a b c d e'"]),
        ("schedule.cron=0 24 * * *", ["`schedule.cron`", "such as \"30 2 * * mon-fri\"", "'0 24 * * *'"]),
        ("classical.metrics=['a', 'b']", ["`classical` must name each value", "(maximize)", "['a', 'b']", "name 1"]),
        ("classical.metrics=['a?']", ["`classical.metrics.0`", "'a?'"]),
        ("classical.guard=a", ["`classical` needs no `guard`", "leave it out"]),
        ("promotion.alpha=1.5", ["`promotion.alpha`", "less than 1", "1.5"]),
        ("promotion.mode=noninferior", ["`promotion.mode`", "'superiority' or 'non_inferiority'", "'noninferior'"]),
        ("promotion.mode=non_inferiority", ["`promotion` with `mode", "needs a `margin` above 0"]),
        ("promotion.margin=0.1", ["`promotion` takes a `margin` (it is 0.1) only with", "by `min_gain`"]),
        ("promotion.slices.age=-1", ["`promotion.slices.age`", "greater than or equal to 0", "-1"]),
        ("name=other", ["--set: `name`", "the file's name", "'other'"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_key_value_and_remedy(override: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load_use_case("digits", [override])
    assert [part for part in says if part not in str(refused.value)] == []


@pytest.mark.parametrize(
    ("metrics", "guard", "says"),
    [
        (
            "['a', 'a']",
            None,
            ["`classical` must name each value by `metrics`, one distinct name per direction", "name 2"],
        ),
        ("['accuracy', 'mb']", "acuracy", ["one of its `metrics` (accuracy, mb)", "did you mean 'accuracy'"]),
        ("[]", "accuracy", ["one of its `metrics` (none)", "name the values by `metrics`"]),
    ],
)
def test_a_guard_is_one_of_several_named_values(metrics: str, guard: str | None, says: list[str]) -> None:
    overrides = ["classical.directions=['maximize', 'minimize']", f"classical.metrics={metrics}"]
    with pytest.raises(ConfigError) as refused:
        load_use_case("digits", [*overrides, *([f"classical.guard={guard}"] if guard else [])])
    assert [part for part in says if part not in str(refused.value)] == []


def test_two_values_with_a_guard_are_valid() -> None:
    overrides = ["directions=['maximize', 'minimize']", "metrics=['accuracy', 'size (mb)']", "guard=accuracy"]
    with pytest.raises(ConfigError, match="size"):  # MLflow takes no brackets
        load_use_case("digits", [f"classical.{o}" for o in overrides])
    overrides[1] = "metrics=['accuracy', 'size_mb']"
    config = load_use_case("digits", [f"classical.{o}" for o in overrides]).classical
    assert config
    assert (config.metrics, config.guard) == (("accuracy", "size_mb"), "accuracy")


def test_an_override_without_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"key\.path=value, but is 'classical'"):
        load_use_case("digits", ["classical"])


def test_an_unknown_use_case_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'digits'.*breast_cancer, diabetes"):
        load_use_case("digts")


def test_a_file_that_is_not_toml_says_where(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text("[data\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: must be TOML, but .*line 1"):
        load_use_case(broken)


def test_a_file_that_is_not_utf8_says_where(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('name = "broken"\ntitle = "Café"\n', encoding="latin-1")
    with pytest.raises(ConfigError, match=r"broken\.toml: must be UTF-8, but line 2 isn't .*; save it as UTF-8"):
        load_use_case(broken)


def test_what_is_missing_is_named_with_what_to_add_and_the_file_is_blamed_for_its_own_keys(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    broken.write_text('titel = "x"\n[tuning]\nfolds = 3\n')
    with pytest.raises(ConfigError) as refused:
        load_use_case(broken, ["tuning.seed=-1"])
    assert [line.split(";")[0] for line in str(refused.value).splitlines()] == [
        "broken.toml: `title` is required, but missing",
        "broken.toml: `data` is required, but missing",
        "broken.toml: `tuning.metric` is required, but missing",
        "--set: `tuning.seed` breaks a rule: Input should be greater than or equal to 0, but it is -1",
        "broken.toml: `titel` is not a key",
    ]
    assert "add the table [data], as configs/digits.toml has it" in str(refused.value)
    assert "add the line metric = …, as" in str(refused.value)


@pytest.mark.parametrize("cron", ["0 2 * * *", "*/15 0-6,22 1,15 JAN-mar/2 mon-fri", "5 4 ? * 0"])
def test_a_cron_expression_is_kept_as_it_is(cron: str) -> None:
    assert load_use_case("digits", [f"schedule.cron={cron}"]).schedule.cron == cron


def test_a_config_without_members_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "empty.toml"
    config.write_text(
        'title = "x"\n[data]\nsource = "sklearn:iris"\ntarget = "target"\n[tuning]\nmetric = "accuracy"\n'
    )
    with pytest.raises(ConfigError, match=r"needs a table \[classical\] or \[deep\]"):
        load_use_case(config)


def test_promotion_without_a_system_is_refused(tmp_path: Path) -> None:
    text = Path("configs/diabetes.toml").read_text().replace("[system]\nn_trials = 20\nlatency_budget_ms = 20.0\n", "")
    (tmp_path / "diabetes.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"add the table \[system\]"):
        load_use_case(tmp_path / "diabetes.toml")


def test_a_limit_on_calibration_needs_probabilities() -> None:
    assert load_use_case("digits", ["promotion.max_calibration_error=0.1"]).promotion
    with pytest.raises(ConfigError, match=r"needs probabilities, but 'r2' is a metric of values; leave it out"):
        load_use_case("diabetes", ["promotion.max_calibration_error=0.1"])


def test_overrides_reach_the_use_case() -> None:
    use_case = load_use_case("digits", ["classical.n_trials=3", 'classical.sampler={ name = "TPESampler", seed = 1 }'])
    assert use_case.classical is not None
    assert use_case.classical.n_trials == 3
    assert use_case.classical.sampler == StrategySpec(name="TPESampler", options={"seed": 1})


@pytest.mark.parametrize(
    "source", ["parquet:s3://key:hunter2@bucket/wine/*.parquet", "parquet:s3://key@bucket/wine?x=1"]
)
def test_a_source_with_credentials_is_refused_without_telling_them(source: str) -> None:
    with pytest.raises(
        ConfigError, match=r"`data\.source` must have no credentials in it; give them by the"
    ) as refused:
        load_use_case("digits", [f"data.source={source}"])
    assert "hunter2" not in str(refused.value)


def test_an_at_sign_in_a_query_is_no_credential() -> None:
    source = "parquet:s3://bucket/wine.parquet?endpoint_override=minio@9000"
    assert load_use_case("digits", [f"data.source={source}"]).data.source == source


def test_the_flows_parser_reads_toml_and_the_json_of_the_local_runner_alike() -> None:
    from_toml = parse_use_case(Path("configs/digits.toml").read_text())
    assert parse_use_case(json.dumps(from_toml)) == from_toml


def test_a_flow_needs_the_name_in_the_text() -> None:
    text = Path("configs/digits.toml").read_text().replace('name = "digits"', "")
    with pytest.raises(ConfigError, match="add name = "):
        parse_use_case(text)


def test_the_metrics_are_scorers_of_scikit_learn_for_their_task() -> None:
    from sklearn.metrics import get_scorer_names

    from shared.config import CLASSIFICATION_METRICS, REGRESSION_METRICS

    assert {*CLASSIFICATION_METRICS, *REGRESSION_METRICS} <= set(get_scorer_names())
