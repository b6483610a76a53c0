"""The configuration: what is read, what is refused and in which words, and that no secret shows."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from exporter import __version__, config
from exporter.config import (
    AgentOS,
    Check,
    Config,
    Database,
    Push,
    Secret,
    SharedState,
    Tls,
    budgets,
    files,
    instances,
    loader,
    shard,
)
from exporter.config.settings import Credential, Protocol
from exporter.config.shard import Shard
from exporter.core.errors import ConfigError
from exporter.counting.budgets import Budget, Period
from exporter.counting.dimensions import Dimension, Origin
from exporter.counting.users import UserLabels
from exporter.metrics.series import Limits
from exporter.pricing.money import USD
from exporter.sources.database.location import Engine, Location, Tables
from tests.harness.examples import examples

HERE = Path(__file__).parents[1] / "config"
GOOD, BAD = HERE / "good", HERE / "bad"
SECRET = "hunter2secret"
ENVIRON = {"GOOD_TOKEN": "token-of-the-variable", "EMPTY_TOKEN": "", "UMLAUT_TOKEN": "hunter2sécret"}
URL = "https://agentos.example.com"
NO_TOKEN = "must hold the token alone, in one line of printable ASCII"


def load_file(path: Path, environ: dict[str, str] | None = None, **flags: object) -> Config:
    return config.load({"config_file": str(path), **flags}, ENVIRON if environ is None else environ)


def problems(flags: dict[str, object], environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        config.load(flags, environ or {})
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.problems


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "config.yml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- Good files -----------------------------------------------------------------------------------------------------


def test_every_key() -> None:
    pem = GOOD / "../pem"
    assert load_file(GOOD / "full.yml") == Config(
        poll_interval=20,
        poll_deadline=90,
        sessions_interval=120,
        operations_interval=180,
        overlap=90,
        trace_horizon=7200,
        initial_lookback=86400,
        zero_hold=0,
        stall_budget=0.05,
        state=GOOD / "state/prod.db",
        agentos=(
            AgentOS(
                "prod",
                "https://agentos.example.com:8443/base",
                token_file=GOOD / "../token",
                db_ids=("main", "17", "on"),
                tls=Tls(pem / "ca.pem", pem / "cert.pem", pem / "key.pem", "agentos"),
            ),
            AgentOS("staging:1", "http://[::1]:7777", token=Secret(ENVIRON["GOOD_TOKEN"]), token_env="GOOD_TOKEN"),
        ),
        limits=Limits(20_000, 100, 64),
        user_labels=UserLabels.HASHED,
        dropped_labels={
            "agentos_llm_tokens_total": frozenset({"root", "agent"}),
            "agentos_tool_call_duration_seconds": frozenset({"tool"}),
        },
        prices=GOOD / "../prices.yml",
        budgets=(
            Budget(
                name="team",
                agentos="prod",
                agent="Researcher",
                period=Period.MONTH,
                time_zone="Europe/Berlin",
                limit=5000 * USD,
            ),
            Budget(
                name="all.days",
                root="My_Team",
                model="gpt-4o",
                user="alice@example.com",
                period=Period.DAY,
                limit=USD // 10_000,
            ),
        ),
        dimensions=(
            Dimension("tenant", Origin.METADATA, "tenant_id"),
            Dimension("release", Origin.TAG, "release"),
            Dimension("team", Origin.USER, values={"alice@example.com": "blue", "bob": "7"}),
            Dimension("chat", Origin.SESSION, hashed=True),
        ),
        reconcile=(
            Check("openai", str(GOOD / "exports/openai-*.json")),
            Check("anthropic", "/var/exports/anthropic.csv", "prod", 14),
        ),
        config_file=GOOD / "full.yml",
        warnings=(
            "dimensions.tenant: prod tells the metadata of runs only with enrich_runs: true",
            "dimensions.tenant: staging:1 tells the metadata of runs only with enrich_runs: true",
            "dimensions.release: prod shows tags only if it is read from its database",
            "dimensions.release: staging:1 shows tags only if it is read from its database",
        ),
    )


def test_targets_that_metrics_are_pushed_to() -> None:
    otlp, first, second = load_file(GOOD / "push.yml").push
    assert otlp == Push(
        "collector.example.com:4318",
        "https://collector.example.com:4318/v1/metrics",
        Protocol.OTLP,
        interval=60,
        timeout=5,
        headers=(("X-Scope-OrgID", Secret("team-a")),),
        token=Credential("token", file=GOOD / "../token"),
        tls=Tls(ca_file=GOOD / "../pem/ca.pem", server_name="collector"),
        labels=(("deployment.environment.name", "prod"), ("service.instance.id", "one")),
    )
    assert first == Push(
        "prometheus.example.com:80",
        "http://prometheus.example.com/api/v1/write",
        Protocol.REMOTE_WRITE,
        username="exporter",
        password=Credential("password", Secret(ENVIRON["GOOD_TOKEN"]), variable="GOOD_TOKEN"),
        labels=(("job", "agentos"), ("instance", "exporter-1")),
    )
    assert (first.interval, first.timeout, second.name) == (30, 10, "spare")
    assert ENVIRON["GOOD_TOKEN"] not in repr(first)
    environ = {**ENVIRON, "https_proxy": "http://proxy:3128", "no_proxy": "prometheus.example.com"}
    assert [one.proxy for one in load_file(GOOD / "push.yml", environ).push] == [
        Secret("http://proxy:3128"),
        None,
        None,
    ]


def test_a_push_without_its_extra_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        if name == "opentelemetry.proto":
            raise ModuleNotFoundError(name)  # as where `opentelemetry` is absent, too

    monkeypatch.setattr("importlib.util.find_spec", absent)
    assert problems({"config_file": GOOD / "push.yml"}, ENVIRON) == (
        "push[0].otlp_url: needs the extra push: install agentos-exporter[push] (line 3)",
        "push[1].remote_write_url: needs the extra push: install agentos-exporter[push] (line 10)",
        "push[2].remote_write_url: needs the extra push: install agentos-exporter[push] (line 15)",
    )


def test_defaults() -> None:
    loaded = load_file(GOOD / "minimal.yml")
    assert loaded == Config(agentos=(AgentOS("prod", URL),), config_file=GOOD / "minimal.yml")
    assert dataclasses.asdict(loaded) == {
        "agentos": (
            {
                "name": "prod",
                "url": URL,
                "token": None,
                "token_file": None,
                "token_env": None,
                "db_ids": None,
                "tls": None,
                "enrich_runs": False,
                "databases": (),
                "proxy": None,
                "discovered": False,
            },
        ),
        "discovery": (),
        "poll_interval": 15,
        "poll_deadline": 60,
        "sessions_interval": 60,
        "operations_interval": 60,
        "overlap": 60,
        "trace_horizon": 3600,
        "initial_lookback": 3600,
        "shard": {"index": 0, "count": 1},
        "zero_hold": 60,
        "stall_budget": 0.05,
        "state": Path("/var/lib/agentos-exporter/state.db"),
        "limits": {"series_per_metric": 10_000, "values_per_label": 500, "label_value_length": 256},
        "user_labels": "off",
        "dropped_labels": {},
        "prices": None,
        "prices_update": False,
        "budgets": (),
        "dimensions": (),
        "push": (),
        "reconcile": (),
        "web": {
            "addresses": (("", 9777, ""),),
            "config_file": None,
            "systemd_socket": False,
            "telemetry_path": "/metrics",
            "route_prefix": "",
            "external_path": "",
            "lifecycle": False,
        },
        "log_level": "info",
        "log_format": None,
        "config_file": GOOD / "minimal.yml",
        "warnings": (),
    }


def test_the_times_of_the_demo_are_allowed() -> None:
    loaded = load_file(GOOD / "demo.yml")
    assert (loaded.poll_interval, loaded.zero_hold, loaded.state) == (2, 5, None)


def test_databases_in_every_form() -> None:
    loaded = load_file(GOOD / "databases.yml")
    secret = Secret("token-of-the-variable")
    postgresql, several, hosts = loaded.agentos
    assert (postgresql.url, postgresql.token, postgresql.enrich_runs) == ("", None, False)
    assert postgresql.where == "postgresql://db/agno"
    assert postgresql.databases == (
        Database(
            Location(
                Engine.POSTGRESQL,
                "agno",
                (("db", None),),
                "reader",
                (("sslmode", "verify-full"),),
                "agents",
                Tables(spans_table="spans", session_table="sessions", runs_table="sessions_runs"),
            ),
            password_file=GOOD / "../password",
        ),
    )
    assert postgresql.databases[0].read_password() == "pass wörd: '#"
    file, mysql, other = several.databases
    assert file == Database(Location(Engine.SQLITE, str(GOOD / "data/agno.db")))
    assert mysql.location == Location(Engine.MYSQL, "", (("db", 3307),), "reader", schema="ai")
    assert (mysql.password, mysql.password_env, mysql.read_password()) == (secret, "GOOD_TOKEN", secret.reveal())
    assert other.location.tables == Tables(spans_table="my_spans")
    assert several.where == f"sqlite:///{GOOD}/data/agno.db, mysql://db:3307/, mysql://db/agno"
    assert hosts.databases[0].location.hosts == (("one", 5432), ("two", 5433))
    assert "wörd" not in repr(loaded)
    assert secret.reveal() not in repr(loaded)
    assert loaded.warnings == (
        "agentos[2]: reads the same databases as agentos[1]; their traces count under both names",
    )


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = write(tmp_path, "agentos: [{name: a, database: 'postgresql://db/x'}, {name: b, database: 'mysql://db/x'}]\n")
    assert problems({"config_file": path}) == (
        "agentos[0].database: needs the package psycopg: install agentos-exporter[postgres] (line 1)",
        "agentos[1].database: needs the package pymysql: install agentos-exporter[mysql] (line 1)",
    )


def test_a_password_file_is_read_at_each_connect(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    path = write(tmp_path, "agentos: [{name: a, database: 'postgresql://u@db/x', password_file: password}]\n")
    ((database,),) = [agentos.databases for agentos in load_file(path).agentos]
    assert database.read_password() == "first"
    file.write_text(" second ")
    assert database.read_password() == " second "
    file.unlink()
    with pytest.raises(ConfigError, match=r"postgresql://db/x: password_file: cannot read .*password: No such file"):
        database.read_password()


def test_a_state_in_postgresql() -> None:
    state = load_file(GOOD / "state_in_postgresql.yml").state
    assert isinstance(state, SharedState)
    assert (str(state), state.lease) == ("postgresql://db/state, schema mine", 20)
    assert (state.location.user, state.location.options) == ("u", (("sslmode", "verify-full"),))
    assert state.read_password() == "pass wörd: '#"
    by_flag = loader.load({"agentos_url": URL, "state": "postgres://db:5433/x"}, {}).state
    assert isinstance(by_flag, SharedState)
    assert (str(by_flag), by_flag.lease) == ("postgresql://db:5433/x, schema agentos_exporter", 15)


def test_every_name_belongs_to_one_shard() -> None:
    names = [f"agentos-{number}" for number in range(1000)]
    for count in (1, 2, 4, 7):
        shards = [Shard(index, count) for index in range(count)]
        owners = [[shard.index for shard in shards if shard.has(name)] for name in names]
        assert all(len(found) == 1 for found in owners)
        sizes = [owners.count([index]) for index in range(count)]
        assert min(sizes) > 0.8 * len(names) / count


def test_one_more_shard_moves_its_share_alone() -> None:
    names = [f"agentos-{number}" for number in range(1000)]
    stayed = [
        name for name in names if any(Shard(index, 4).has(name) and Shard(index, 5).has(name) for index in range(4))
    ]
    moved = set(names) - set(stayed)
    assert all(Shard(4, 5).has(name) for name in moved)
    assert len(moved) < 1.3 * len(names) / 5


def test_shards_divide_as_jump_hashing_does() -> None:
    """Values that implementations in other languages are tested with."""
    known = {(1, 1): 0, (42, 57): 43, (0xDEAD10CC, 1): 0, (0xDEAD10CC, 666): 361, (256, 1024): 520}
    assert {key: shard._jump(*key) for key in known} == known
    assert shard._fnv(b"foobar") == 0x85944171F73967E8


def test_databases_read_twice_are_a_warning() -> None:
    loaded = load_file(GOOD / "same_databases.yml")
    assert loaded.warnings == (
        "agentos[1]: reads the same databases as agentos[0]; their traces count under both names",
        "agentos[2]: reads the same databases as agentos[0]; their traces count under both names",
    )


def test_an_empty_file_beside_a_url() -> None:
    assert load_file(GOOD / "empty.yml", agentos_url=URL).agentos == (AgentOS("agentos.example.com", URL),)


def test_no_id_of_a_user_shows_in_the_configuration() -> None:
    loaded = load_file(GOOD / "full.yml")
    assert loaded.budgets[1].user == "alice@example.com"
    assert "alice" not in repr(loaded)


@pytest.mark.parametrize(
    ("text", "mode"), [("off", "off"), ("false", "off"), ("No", "off"), ("hashed", "hashed"), ("Plain", "plain")]
)
def test_labels_of_users(tmp_path: Path, text: str, mode: str) -> None:
    path = write(tmp_path, f"labels: {{user: {text}}}\nagentos: [{{name: a, url: 'http://a'}}]\n")
    assert load_file(path).user_labels is UserLabels(mode)


def test_a_label_that_rules_need_twice_and_find_once_is_a_warning(tmp_path: Path) -> None:
    calls, errors = "agentos_tool_calls_total", "agentos_tool_call_errors_total"
    drop = {calls: "[tool, root]", "agentos_spans_total": "[span_kind]", "agentos_run_errors_total": "[error_type]"}
    text = "".join(f"    {name}: {labels}\n" for name, labels in drop.items())
    head, tail = "labels:\n  drop:\n", "agentos: [{name: a, url: 'http://a'}]\n"
    end = "is not: the shipped rules cannot divide them by each other, and their alerts are silent"
    spans = f"labels.drop: span_kind of agentos_spans_total is dropped and that of agentos_error_spans_total {end}"
    tools = f"labels.drop: tool of {calls} is dropped and that of {errors} {end}"
    assert load_file(write(tmp_path, head + text + tail)).warnings == (tools, spans)
    text += f"    {errors}: [tool]\n"
    assert load_file(write(tmp_path, head + text + tail)).warnings == (spans,)


def test_what_memory_forgets_is_a_warning(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "state: memory\nlabels: {user: hashed}\nbudgets: [{name: b, period: day, limit_usd: 1}]\n"
        "reconcile: [{vendor: openai, usage: openai.json}]\n"
        "agentos: [{name: a, url: 'http://a'}]\n",
    )
    warnings = (
        "labels.user: with state: memory the hashes have a new key at each start, so users get new labels",
        "budgets: with state: memory what was spent is forgotten at each start",
        "reconcile: with state: memory there are no daily sums, so nothing is compared",
    )
    assert load_file(path).warnings == warnings
    assert load_file(path, state=str(tmp_path / "state.db")).warnings == ()


@pytest.mark.parametrize(
    ("text", "units"),
    [("5000", 5000 * USD), ("0.1", USD // 10), ("1e-18", 1), ("1_000.5", 1000 * USD + USD // 2), ("1e12", 10**30)],
)
def test_a_limit_is_exact(tmp_path: Path, text: str, units: int) -> None:
    path = write(
        tmp_path,
        f"budgets: [{{name: b, period: day, limit_usd: {text}}}]\nagentos: [{{name: a, url: 'http://a'}}]\n",
    )
    assert load_file(path).budgets[0].limit == units


def test_a_budget_is_for_an_agentos_that_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "budgets: [{name: b, agentos: prod, period: day, limit_usd: 1}]\nagentos: [{name: prod, url: 'http://a'}]\n",
    )
    assert load_file(path).budgets[0].agentos == "prod"
    expected = "budgets[0].agentos: 'prod' is not the name of an AgentOS; known are agentos.example.com (line 1)"
    assert problems({"config_file": str(path), "agentos_url": URL}) == (expected,)


def test_the_keys_that_changed() -> None:
    old = load_file(GOOD / "full.yml")
    assert config.changed_keys(old, old) == ()
    new = dataclasses.replace(old, user_labels=UserLabels.OFF, dropped_labels={}, budgets=(), zero_hold=1)
    new = dataclasses.replace(new, warnings=("x",))
    assert config.changed_keys(old, new) == ("zero_hold", "labels.user", "labels.drop", "budgets")


def test_the_price_file_can_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "prices: absent.yml\nagentos: [{name: a, url: 'http://a'}]\n")
    loaded = config.load({"config_file": str(path)}, {}, check_prices=False)
    assert loaded.prices == tmp_path / "absent.yml"


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbfpoll_interval: 20s\r\nagentos:\r\n  - {name: a, url: 'http://a'}\r\n")
    assert load_file(path).poll_interval == 20


def test_paths_in_the_file_start_from_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(HERE)
    loaded = config.load({"config_file": "good/full.yml", "state": "other.db"}, ENVIRON)
    assert loaded.agentos[0].token_file == GOOD / "../token"
    assert loaded.state == HERE / "other.db"


def test_the_tls_files_make_a_context() -> None:
    tls = load_file(GOOD / "full.yml").agentos[0].tls
    assert tls is not None
    assert len(tls.context().get_ca_certs()) == 1


def test_frozen() -> None:
    loaded = load_file(GOOD / "minimal.yml")
    for instance, name in ((loaded, "state"), (loaded.agentos[0], "url"), (loaded.limits, "values_per_label")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(instance, name, None)


# --- Bad files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(BAD.glob("*.yml")), ids=lambda path: path.stem)
def test_a_bad_file_is_refused_in_these_words(path: Path) -> None:
    expected = path.with_suffix(".txt").read_text(encoding="utf-8")
    found = "".join(f"{problem}\n" for problem in problems({"config_file": path}, ENVIRON))
    assert found == expected.replace("{dir}", str(HERE)).replace("{version}", __version__)
    assert SECRET not in found


def test_every_bad_file_has_its_words() -> None:
    assert {path.stem for path in BAD.glob("*.yml")} == {path.stem for path in BAD.glob("*.txt")}
    assert len(list(BAD.glob("*.yml"))) >= 35


def test_no_agentos_at_all() -> None:
    expected = "agentos: no AgentOS to read; list one under agentos in the file of --config.file, or give --agentos.url"
    assert problems({}) == (expected,)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.yml", "cannot read {path}: No such file or directory"),
        ("", "cannot read {path}: Is a directory"),
        ("a\nb\x1b.yml", "cannot read {dir}/a\\nb\\x1b.yml: No such file or directory"),
        ("x" * 300, "cannot read {path}: File name too long"),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / name
    message = message.format(path=path, dir=tmp_path)
    assert problems({"config_file": path}) == (f"--config.file: {message}",)
    assert problems({}, {"AGENTOS_EXPORTER_CONFIG_FILE": str(path)}) == (f"AGENTOS_EXPORTER_CONFIG_FILE: {message}",)


def test_a_file_without_read_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:  # root, who runs containers' tests, may read everything
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "head", refuse)
    path = write(tmp_path, "")
    assert problems({"config_file": path}) == (f"--config.file: cannot read {path}: Permission denied",)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = write(tmp_path, "#" * (1024 * 1024 + 1))
    assert problems({"config_file": path}) == (f"--config.file: {path} is larger than 1 MiB",)


def test_deep_nesting_ends_soon(tmp_path: Path) -> None:
    path = write(tmp_path, "[" * 1024 * 1024)
    assert problems({"config_file": path}) == ("line 1, column 17: nested too deeply",)


# --- Flags and environment ------------------------------------------------------------------------------------------

SETTINGS = [
    ("--state", "state", "/s/flag.db", "/s/env.db", lambda loaded: str(loaded.state)),
    ("--web.listen-address", "listen_address", ":1", ":2", lambda loaded: ",".join(map(str, loaded.web.addresses))),
    ("--web.telemetry-path", "web_telemetry_path", "/a", "/b", lambda loaded: loaded.web.telemetry_path),
    ("--web.external-url", "web_external_url", "/a", "/b", lambda loaded: loaded.web.external_path),
    ("--web.route-prefix", "web_route_prefix", "/a", "/b", lambda loaded: loaded.web.route_prefix),
    ("--log.level", "log_level", "debug", "warn", lambda loaded: loaded.log_level),
    ("--log.format", "log_format", "json", "logfmt", lambda loaded: loaded.log_format),
    ("--agentos.url", "agentos_url", "http://flag", "http://env", lambda loaded: loaded.agentos[0].url),
]


@pytest.mark.parametrize(("spelling", "key", "by_flag", "by_env", "read"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_flags_win_over_environment_over_file(spelling: str, key: str, by_flag: str, by_env: str, read: Any) -> None:
    flag = next(flag for flag in config.FLAGS if flag.spelling == spelling)
    assert (flag.key, flag.env) == (key, config.ENV_PREFIX + spelling[2:].upper().replace(".", "_").replace("-", "_"))
    file = str(GOOD / "demo.yml")
    environ = {flag.env: by_env, "AGENTOS_EXPORTER_CONFIG_FILE": file}
    assert read(config.load({key: by_flag}, environ)) == by_flag
    assert read(config.load({key: None}, environ)) == by_env
    without = read(config.load({}, {**environ, flag.env: ""}))
    assert without == read(load_file(GOOD / "demo.yml"))
    assert without not in {by_flag, by_env}


def test_a_config_file_by_flag_wins() -> None:
    loaded = load_file(GOOD / "minimal.yml", {"AGENTOS_EXPORTER_CONFIG_FILE": str(GOOD / "absent.yml")})
    assert loaded.config_file == GOOD / "minimal.yml"


def test_state_memory_by_flag_wins_over_the_file() -> None:
    assert load_file(GOOD / "full.yml", state="memory").state is None
    assert load_file(GOOD / "demo.yml", state="x.db").state == Path.cwd() / "x.db"


def test_a_url_takes_the_place_of_the_list() -> None:
    loaded = load_file(GOOD / "minimal.yml", {"AGENTOS_EXPORTER_AGENTOS_URL": "http://localhost:7777/"})
    assert loaded.agentos == (AgentOS("localhost:7777", "http://localhost:7777"),)
    assert loaded.warnings == (
        "agentos: the list in the file is not used; AGENTOS_EXPORTER_AGENTOS_URL takes its place",
    )


@pytest.mark.parametrize(
    ("url", "name", "kept"),
    [
        ("http://[::1]:7777/x/", "::1:7777", "http://[::1]:7777/x"),
        ("HTTP://Agent-1", "agent-1", "http://agent-1"),
        (f"https://{'a' * 80}.example", "a" * 64, f"https://{'a' * 80}.example"),
    ],
)
def test_the_default_name_is_host_and_port(url: str, name: str, kept: str) -> None:
    (agentos,) = config.load({"agentos_url": url}, {}).agentos
    assert (agentos.name, agentos.url) == (name, kept)


def test_tokens_of_the_single_agentos(tmp_path: Path) -> None:
    flags = {"agentos_url": URL}
    (agentos,) = config.load(flags, {"AGENTOS_EXPORTER_TOKEN": " abcdef\n"}).agentos
    assert agentos.read_token() == "abcdef"
    file = tmp_path / "token"
    file.write_text("one\n")
    (agentos,) = config.load(flags, {"AGENTOS_EXPORTER_TOKEN_FILE": str(file)}).agentos
    assert agentos.read_token() == "one"
    file.write_text("two\n")
    assert agentos.read_token() == "two"
    assert config.load(flags, {}).agentos[0].read_token() is None


@pytest.mark.parametrize(
    ("flags", "environ", "expected"),
    [
        (
            {"agentos_url": f"https://me:{SECRET}@host"},
            {},
            "--agentos.url: a URL carries no user or password here; the token belongs into token_file or token_env",
        ),
        (
            {},
            {"AGENTOS_EXPORTER_AGENTOS_URL": "x"},
            "AGENTOS_EXPORTER_AGENTOS_URL: a URL starts with http:// or https://",
        ),
        (
            {"agentos_url": URL, "web_config_file": "/nowhere/web.yml"},
            {},
            "--web.config.file: cannot read /nowhere/web.yml: No such file or directory",
        ),
        (
            {"agentos_url": URL},
            {"AGENTOS_EXPORTER_WEB_CONFIG_FILE": "/nowhere/web.yml"},
            "AGENTOS_EXPORTER_WEB_CONFIG_FILE: cannot read /nowhere/web.yml: No such file or directory",
        ),
        ({"agentos_url": URL, "state": ""}, {}, "--state: has no value"),
        ({"agentos_url": URL, "state": 7}, {}, "--state: has no value"),
        (
            {"agentos_url": URL, "state": f"postgres://u:{SECRET}@h/d"},
            {},
            "--state: the URL carries no password here; it belongs into password_file or password_env",
        ),
        (
            {"agentos_url": URL},
            {"AGENTOS_EXPORTER_LOG_LEVEL": "loud"},
            "AGENTOS_EXPORTER_LOG_LEVEL: must be debug, info, warn or error, not 'loud'",
        ),
        ({"agentos_url": URL, "shard_index": "2"}, {}, "--shard.index: must be below --shard.count, which is 1"),
        (
            {"agentos_url": URL},
            {"AGENTOS_EXPORTER_SHARD_COUNT": "many"},
            "AGENTOS_EXPORTER_SHARD_COUNT: must be a whole number between 1 and 1000, not 'many'",
        ),
        ({"agentos_url": URL, "log_format": "xml"}, {}, "--log.format: must be logfmt or json, not 'xml'"),
        (
            {"agentos_url": URL},
            {"AGENTOS_EXPORTER_TOKEN": SECRET, "AGENTOS_EXPORTER_TOKEN_FILE": "x"},
            "AGENTOS_EXPORTER_TOKEN: give it or AGENTOS_EXPORTER_TOKEN_FILE, not both",
        ),
        (
            {"agentos_url": URL},
            {"AGENTOS_EXPORTER_TOKEN": f"{SECRET}\nX-Evil: 1"},
            f"AGENTOS_EXPORTER_TOKEN: environment variable AGENTOS_EXPORTER_TOKEN {NO_TOKEN}",
        ),
        (
            {"agentos_url": URL},
            {"AGENTOS_EXPORTER_TOKEN": f"{SECRET}\udcff"},
            f"AGENTOS_EXPORTER_TOKEN: environment variable AGENTOS_EXPORTER_TOKEN {NO_TOKEN}",
        ),
        (
            {"agentos_url": URL},
            {"AGENTOS_EXPORTER_TOKEN_FILE": "/dev/null"},
            "AGENTOS_EXPORTER_TOKEN_FILE: /dev/null is not a regular file; it must be a file that holds the token",
        ),
    ],
)
def test_bad_flags_and_variables(flags: dict[str, object], environ: dict[str, str], expected: str) -> None:
    assert problems(flags, environ) == (expected.format(version=__version__),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":9777", ("", 9777, "")),
        ("127.0.0.1:0", ("127.0.0.1", 0, "")),
        ("localhost:80", ("localhost", 80, "")),
        ("[::1]:9777", ("::1", 9777, "")),
        ("[::]:65535", ("::", 65535, "")),
        ("unix:/run/exporter.sock", ("", 9777, "/run/exporter.sock")),
    ],
)
def test_listen_addresses(text: str, expected: tuple[str, int, str]) -> None:
    assert config.parse_address(text) == expected
    assert str(config.parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9777", "'9777' is not a listen address; write :9777"),
        ("localhost", "'localhost' is not a listen address such as :9777 or 127.0.0.1:9777"),
        ("::1:9777", "'::1:9777': an IPv6 address goes in brackets, such as [::1]:9777"),
        ("[localhost]:9777", "'[localhost]:9777': no IPv6 address in the brackets"),
        ("[]:9777", "'[]:9777': no IPv6 address in the brackets"),
        (":65536", "':65536': a port is at most 65535"),
        ("a b:80", "'a b:80' has no valid host"),
        ("unix:run.sock", "'unix:' needs the absolute path of a socket, of at most 107 bytes"),
        ("unix:/" + "x" * 107, "'unix:' needs the absolute path of a socket, of at most 107 bytes"),
        (":1,:1", "an address is given twice"),
    ],
)
def test_bad_listen_addresses(text: str, message: str) -> None:
    assert problems({"agentos_url": URL, "listen_address": text}) == (f"--web.listen-address: {message}",)


def test_several_listen_addresses() -> None:
    for addresses in ([":1", "[::1]:2", "unix:/s"], ":1,[::1]:2,unix:/s"):
        loaded = config.load({"agentos_url": URL, "listen_address": addresses}, {})
        assert [str(address) for address in loaded.web.addresses] == [":1", "[::1]:2", "unix:/s"]


@pytest.mark.parametrize(
    ("flags", "environ", "expected"),
    [
        ({"web_external_url": "https://x.example.com/agentos/"}, {}, ("/agentos", "/agentos")),
        ({"web_external_url": "https://x.example.com"}, {}, ("", "")),
        ({"web_external_url": "https://x/a", "web_route_prefix": "/"}, {}, ("/a", "")),
        ({}, {"AGENTOS_EXPORTER_WEB_EXTERNAL_URL": "/a/b/"}, ("/a/b", "/a/b")),
    ],
)
def test_prefixes(flags: dict[str, object], environ: dict[str, str], expected: tuple[str, str]) -> None:
    web = config.load({"agentos_url": URL, **flags}, environ).web
    assert (web.external_path, web.route_prefix) == expected


def test_switches() -> None:
    assert config.load({"agentos_url": URL, "web_enable_lifecycle": True}, {}).web.lifecycle
    assert config.load({"agentos_url": URL}, {"AGENTOS_EXPORTER_WEB_ENABLE_LIFECYCLE": "yes"}).web.lifecycle
    assert config.load({"agentos_url": URL, "web_systemd_socket": True}, {}).web.systemd_socket


def test_strange_variables_are_named() -> None:
    loaded = load_file(
        GOOD / "minimal.yml",
        {
            "AGENTOS_EXPORTER_STAT": "x",
            "AGENTOS_EXPORTER_COLOUR": "x",
            "AGENTOS_EXPORTER_TOKEN": SECRET,
            # What Kubernetes sets beside a Service called agentos-exporter:
            "AGENTOS_EXPORTER_PORT": "tcp://10.0.0.1:9777",
            "AGENTOS_EXPORTER_PORT_9777_TCP": "tcp://10.0.0.1:9777",
            "AGENTOS_EXPORTER_SERVICE_HOST": "10.0.0.1",
        },
    )
    assert loaded.warnings == (
        "AGENTOS_EXPORTER_TOKEN: not used without --agentos.url; in the file it is token_env or token_file",
        "AGENTOS_EXPORTER_COLOUR: not a setting of agentos-exporter",
        "AGENTOS_EXPORTER_STAT: not a setting of agentos-exporter; did you mean AGENTOS_EXPORTER_STATE?",
    )


def test_a_token_variable_may_have_our_prefix(tmp_path: Path) -> None:
    path = write(tmp_path, f"agentos: [{{name: a, url: '{URL}', token_env: AGENTOS_EXPORTER_TOKEN}}]")
    loaded = load_file(path, {"AGENTOS_EXPORTER_TOKEN": SECRET})
    assert loaded.warnings == ()
    assert loaded.agentos[0].read_token() == SECRET


# --- Secrets --------------------------------------------------------------------------------------------------------


def test_a_secret_shows_nowhere() -> None:
    secret = Secret(SECRET)
    loaded = config.load({"agentos_url": URL}, {"AGENTOS_EXPORTER_TOKEN": SECRET})
    for shown in (
        *(str(secret), repr(secret), f"{secret}", f"{secret!r:>30}", "%s" % secret, repr([secret])),  # noqa: UP031
        *(repr(loaded), str(loaded), repr(loaded.agentos), repr(dataclasses.asdict(loaded))),
    ):
        assert SECRET not in shown
        assert "<secret>" in shown
    assert secret.reveal() == SECRET
    assert copy.deepcopy(secret) == secret
    assert secret != Secret("other")
    assert secret != SECRET
    assert len({secret, Secret(SECRET)}) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read {file}: No such file or directory; it must be a file that holds the token"),
        (b" \n", "{file} is empty; put the token into it"),
        (b"hunter2secret\nmore", "{file} must hold the token alone, in one line of printable ASCII"),
        (b"hunter2secret\x00", "{file} must hold the token alone, in one line of printable ASCII"),
        ("hunter2secret€".encode(), "{file} must hold the token alone, in one line of printable ASCII"),
        (b"\xff\xfeh\x00", "{file} must hold the token alone, in one line of printable ASCII"),
        (b"Bearer hunter2secret", "{file} must hold the token alone, without the word Bearer"),
        (b"hunter2secret" * 2000, "{file} is larger than 16 KiB; it must hold the token alone"),
    ],
)
def test_a_token_file_that_goes_bad_while_running(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "rotated"
    agentos = AgentOS("prod", URL, token_file=file)
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        agentos.read_token()
    assert caught.value.problems == ("agentos prod: token_file: " + message.format(file=file),)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    "line",
    [
        "    token: {0}",
        "    {0}: x",
        "    token_env: '{0} x'",
        "    token_env: sk_{0}_1234567890",
        "    token_file: sk-{0}",
        "    token_file: eyJ{0}.abc.def",
        "    token_file: !{0}!x y",
        "    token_file: &{0} *{0}",
        "    token_file: '{0}",
        "    password_env: {0}",
        "    tls: {{ca_file:{0}1234}}",
        "    url: https://x:{0}@host",
        "    database: postgresql://x:{0}@host",
        "  - {0}9999",
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path, line: str) -> None:
    secret = "s3cr3t" * 4
    path = write(tmp_path, f"agentos:\n  - name: a\n    url: http://a\n{line.format(secret)}\n")
    found = problems({"config_file": path})
    assert found
    assert secret not in repr(found)


# --- Durations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1m30s", 90), ("1h", 3600), ("500ms", 0.5), ("1d", 86400), ("1d2h3m4s5ms", 93784.005), ("0s", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert config.parse_duration(text) == seconds
    assert config.format_duration(seconds) == text


@pytest.mark.parametrize(
    "text", ["", "15", "s", "1.5s", "-1s", "+1s", "1S", "1s ", "1 s", "1s1m", "1s1s", "1w", "\u0661s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration such as|has no unit; write 15s"):
        config.parse_duration(text)


@given(st.integers(0, 10**14))
def test_a_duration_survives_a_round_trip(milliseconds: int) -> None:
    text = config.format_duration(milliseconds / 1000)
    assert config.parse_duration(text) == milliseconds / 1000


# --- Whatever comes in, only ConfigError comes out ------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *(
            "poll_interval",
            "overlap",
            "state",
            "agentos",
            "labels",
            "limits",
            "prices",
            "budgets",
            "name",
            "url",
            "tls",
        ),
        *("drop", "agentos_up", "agentos_spans_total", "root"),
        *("token_file", "token_env", "db_ids", "ca_file", "cert_file", "user", "series_per_metric", "database"),
        *("memory", "15s", "15", "off", "true", URL, "http://[", "http://a:b:c", "https://@", ":", "~", "1:30", "0x1F"),
        *("GOOD_TOKEN", "../token", "postgresql://", "<<", "\x00", "\ud800", "é", "-", "1_0", "9" * 5000),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.text(max_size=20) | WORDS
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=6),
    max_leaves=25,
)


def survive(flags: dict[str, object], environ: dict[str, str] | None = None) -> None:
    found = ("none",)
    try:
        loaded = config.load(flags, ENVIRON if environ is None else environ)
    except ConfigError as error:
        found = error.problems
    else:
        assert isinstance(loaded, Config)
    assert found
    assert all(problem.isprintable() for problem in found)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "config.yml"


FUZZ = examples(150)


@FUZZ
@given(tree=TREES)
def test_any_tree(scratch: Path, tree: object) -> None:
    scratch.write_text(yaml.safe_dump(tree, allow_unicode=False), encoding="utf-8")
    survive({"config_file": scratch})


@FUZZ
@given(
    top=st.dictionaries(st.sampled_from(loader._TOP), TREES),
    entry=st.dictionaries(st.sampled_from(instances._INSTANCE), TREES),
)
def test_known_keys_with_any_value(scratch: Path, top: dict[str, object], entry: dict[str, object]) -> None:
    scratch.write_text(yaml.safe_dump({**top, "agentos": [entry, entry]}, allow_unicode=False), encoding="utf-8")
    survive({"config_file": scratch})


@FUZZ
@given(entry=st.dictionaries(st.sampled_from(budgets._BUDGET), TREES), number=st.text("0123456789eE+-._naifNAIF"))
def test_budgets_with_any_value(scratch: Path, entry: dict[str, object], number: str) -> None:
    good = {"name": "b", "period": "day", "limit_usd": 1}
    for budget in (entry, {**good, **entry}, {**good, "limit_usd": number}):
        tree = {"budgets": [budget, good], "agentos": [{"name": "a", "url": "http://a"}]}
        scratch.write_text(yaml.safe_dump(tree, allow_unicode=False), encoding="utf-8")
        survive({"config_file": scratch})


@FUZZ
@given(raw=st.binary(max_size=300))
@example(raw=b'"\\UFFFFFFFF"')
@example(raw=b'"\\ud800": "\\ud800"')
@example(raw=b"%YAML " + b"9" * 5000 + b".1\n---\na: b\n")
@example(raw=b"%YAML 2.0\n---\na: b\n")
@example(raw=b"!%ff x")
@example(raw=b"? \n: \n")
@example(raw=b"...\n...\n")
@example(raw=b"\xff\xfea\x00")
def test_any_bytes(scratch: Path, raw: bytes) -> None:
    scratch.write_bytes(raw)
    survive({"config_file": scratch})


@FUZZ
@given(text=st.text(alphabet=" \t\n:-[]{}!&*|>'\"%@`#,?\\ab01~<\r\x85\u2028", max_size=60))
def test_any_text(scratch: Path, text: str) -> None:
    scratch.write_bytes(text.encode())
    survive({"config_file": scratch})


@FUZZ
@given(
    flags=st.dictionaries(st.sampled_from([flag.key for flag in config.FLAGS]), SCALARS | st.binary()),
    environ=st.dictionaries(
        st.sampled_from([flag.env for flag in config.FLAGS] + [name for name, _ in config.VARIABLES]),
        st.text(max_size=20) | WORDS,
    ),
)
def test_any_flags(flags: dict[str, object], environ: dict[str, str]) -> None:
    survive(flags, environ)


# Proxies


def test_a_proxy_is_that_of_the_file_or_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(
        "agentos:\n"
        "  - {name: a, url: 'http://a.example.com'}\n"
        "  - {name: b, url: 'http://b.example.com', proxy_url: 'socks5h://user:pass@gate:1080'}\n"
        "  - {name: c, url: 'http://c.example.com', proxy_url: none}\n"
        "  - {name: d, url: 'http://10.0.0.7:7777'}\n"
    )
    environ = {"HTTP_PROXY": "proxy:3128", "NO_PROXY": "10.0.0.0/8"}
    loaded = config.load({"config_file": str(file)}, environ)
    proxies = [agentos.proxy and agentos.proxy.reveal() for agentos in loaded.agentos]
    assert proxies == ["http://proxy:3128", "socks5h://user:pass@gate:1080", None, None]
    (single,) = config.load({"agentos_url": "http://a.example.com"}, environ).agentos
    assert single.proxy is not None
    assert single.proxy.reveal() == "http://proxy:3128"


def test_a_proxy_variable_that_cannot_be_used_is_said_once(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text("agentos:\n  - {name: a, url: 'http://a'}\n  - {name: b, url: 'http://b'}\n")
    with pytest.raises(ConfigError) as refused:
        config.load({"config_file": str(file)}, {"HTTP_PROXY": "http://user:S3CRET/x@proxy:3128"})
    (problem,) = refused.value.problems
    assert problem.startswith("HTTP_PROXY: is no URL of a proxy; write it as ")
    assert "S3CRET" not in problem
