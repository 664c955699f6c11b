"""The deploy config: one YAML file that says what runs. Paths in it are relative to the file itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator

from cluster.adapters import with_bases
from cluster.autoscaling.config import ScaledSpec
from cluster.config import ModelName, ModelSpec, RemoteSpec, ReplicatedSpec, VllmSpec
from cluster.errors import ConfigError
from cluster.node_pools import NodePoolSpec, PlacedSpec
from cluster.spec import Dollars, Spec
from cluster.vllm_options import DraftSpeculation
from graphs.durations import parse_duration, parse_duration_or_0
from runtime.durability.model import LEASE_S
from runtime.mcp.config import McpServerSpec, ServerName
from runtime.records.store import DEFAULT_KEEP_S
from serve_apps.gateway.oidc.config import AuthSettings
from serve_apps.gateway.traffic import check_traffic

MAX_CONFIG_BYTES = 1024 * 1024

HostName = Annotated[str, Field(pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$")]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


GraphReference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[A-Za-z0-9.+-]{1,64})?$")]
ServedName = Annotated[
    str, Field(pattern=r"^(graph/)?[A-Za-z0-9][A-Za-z0-9._-]{0,63}(@[A-Za-z0-9.+-]{1,64})?$")
]
Weight = Annotated[float, Field(ge=0, le=1_000_000)]
TaskName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
TenantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
SealedName = Annotated[str, Field(pattern=r"^(\*|[A-Za-z0-9][A-Za-z0-9._-]{0,127})$")]


KNOWN_KEYS_S = 60.0
"""How long known keys go on while the store is out, where `quotas.when_store_is_out` is `local_share`."""


class StoreSettings(Spec):
    """Where keys, quotas and contexts live."""

    url: str | None = Field(default=None, pattern=r"^(redis|rediss|unix)://\S+$")
    """`redis://` or `rediss://` of a server of yours. Default: a Valkey of ours under `data_dir`, which only
    processes of the same machine can reach."""
    timeout_s: float = Field(default=0.1, gt=0, le=5)
    """Longest wait for one round trip; past it a call is refused rather than let through uncounted."""
    known_keys: Annotated[float, BeforeValidator(parse_duration_or_0), Field(ge=0, le=3600)] | None = None
    """How long a key that a gateway has just seen goes on while the store is out, though it may have been
    revoked meanwhile. Default: not at all, but `KNOWN_KEYS_S` where calls are admitted without the store."""


class QuotaSettings(Spec):
    """What callers may spend."""

    when_store_is_out: Literal["refuse", "local_share"] = "refuse"
    """`refuse`: nothing is admitted. `local_share`: rates are counted by each gateway for itself, each with
    its part of every limit; who has a budget, of tokens a day or money a month, is refused all the same."""


class TenantSettings(Spec):
    """What the cluster knows of an organisation."""

    weight: float = Field(default=1.0, gt=0, le=1000)
    """Its part of a model that several wait for: twice the weight is twice the tokens."""


class GatewaySettings(PlacedSpec):
    """The front door."""

    replicas: int = Field(default=1, ge=1, le=256)
    num_cpus: float = Field(default=0.25, ge=0)
    max_ongoing_requests: int = Field(default=1024, ge=1)
    default_timeout_s: float = Field(default=120, gt=0)
    """Deadline of a request that names none."""
    max_timeout_s: float = Field(default=600, gt=0)
    """Longest deadline a request may name."""
    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)


class RunnerSettings(PlacedSpec, ScaledSpec):
    """What runs the graphs. Functions with processes of their own run on the nodes of its pool."""

    num_cpus: float = Field(default=0.25, ge=0)
    max_ongoing_requests: int = Field(default=256, ge=1)

    @property
    def usual_at_once(self) -> int:
        return max(1, self.max_ongoing_requests // 2)


class AutoscalingSettings(Spec):
    """How models and runners with a range of `replicas` come and go, all together."""

    wait: Annotated[float, BeforeValidator(parse_duration)] = 1.0
    """What a run, or a call of a model, should at most wait for replicas in all, as `500ms` or in seconds,"""
    in_time: float = Field(default=0.95, ge=0.5, le=0.9999)
    """in this share of cases."""
    down_after: Annotated[float, BeforeValidator(parse_duration), Field(le=86400)] = 60.0
    """How long fewer replicas must have been enough before there are fewer."""
    zero_after: Annotated[float, BeforeValidator(parse_duration), Field(le=7 * 86400)] = 300.0
    """How long nothing must have come before there are none, where `min` is 0."""
    max_cost_per_hour: Dollars | None = None
    """US dollars, of everything that scales. Default: no bound but that of each `max`."""

    @model_validator(mode="after")
    def _in_order(self) -> AutoscalingSettings:
        if self.zero_after < self.down_after:
            raise ValueError(
                f"zero_after ({self.zero_after:g} s) must be at least down_after ({self.down_after:g} s)"
            )
        return self


class IndexSettings(Spec):
    """A vector index over Markdown files, built by the runner when it starts."""

    model: ModelName
    """The embedding model; queries must be embedded by the same."""
    corpus: list[Path] = Field(min_length=1)
    """Files, or folders whose `*.md` files are taken."""


class HttpHost(Spec):
    """A web server that graphs may call."""

    name: HostName
    allow_private: bool = False
    """Whether it may be on this machine or in its network."""


class HttpSettings(Spec):
    """What graphs may reach with `http` nodes: nothing that is not listed."""

    hosts: list[HostName | HttpHost] = Field(default_factory=list)
    """As `api.example.com`, or `{name: "localhost:8080", allow_private: true}`. The port stands where it is
    not that of `http` or `https`."""
    env: list[VariableName] = Field(default_factory=list)
    """Environment variables of the runner that headers may be taken from."""

    def by_name(self) -> dict[str, bool]:
        """The hosts, and whether each may be private."""
        return {
            host if isinstance(host, str) else host.name: isinstance(host, HttpHost) and host.allow_private
            for host in self.hosts
        }


class ContextSettings(Spec):
    """Conversations kept under a `contextId`."""

    ttl_s: float = Field(default=7 * 24 * 3600, gt=0)
    """A conversation is forgotten this long after its last turn."""


class RunsSettings(Spec):
    """Records of the runs of graphs."""

    keep: Annotated[float, BeforeValidator(parse_duration)] = DEFAULT_KEEP_S
    """How long a run is remembered, as `24h` or a number of seconds."""
    lease: Annotated[float, BeforeValidator(parse_duration), Field(ge=1, le=60)] = LEASE_S
    """How long a runner that says nothing still owns its durable runs; then another goes on with them."""
    sealed: list[SealedName] = Field(default_factory=list)
    """Tenants of whose runs the store keeps everything encrypted: inputs, outputs, events, records,
    approvals, answers to idempotency keys, and responses. `*` is all tenants."""


class UsageSettings(Spec):
    """What calls used and cost."""

    url: SecretStr | None = None
    """Of a database, as SQLAlchemy writes it: `postgresql+psycopg://user:password@host/name`. Default: SQLite
    under `data_dir`."""
    keep: Annotated[float, BeforeValidator(parse_duration), Field(ge=3600)] = 30 * 24 * 3600
    """How long single calls are kept, as `48h` or a number of seconds. Their sums are kept for longer."""


class Settings(Spec):
    """The whole file."""

    data_dir: Path = Path(".data")
    """Models, indexes, secrets and the embedded store of this machine."""
    models: list[ModelSpec] = Field(min_length=1)
    node_pools: list[NodePoolSpec] = Field(default_factory=list)
    """The machines of the cluster. Without them models run on whatever Ray finds."""
    graphs: list[Path] = Field(default_factory=list)
    """Pipeline files."""
    tasks: dict[TaskName, GraphReference] = Field(default_factory=dict)
    """Graphs by the tasks that they are for: `sentiment-analysis: sentiment` is called on
    `/ai/sentiment-analysis`."""
    traffic: dict[ServedName, dict[ServedName, Weight]] = Field(default_factory=dict)
    """By a model, or `graph/NAME`, that callers name: the models, or versions of that graph as
    `graph/NAME@VERSION`, that answer, and with what weight. A trial comes last."""
    prompts: list[Path] = Field(default_factory=list)
    """Prompt files, or folders whose `*.yaml` files are taken."""
    indexes: dict[ModelName, IndexSettings] = Field(default_factory=dict)
    store: StoreSettings = StoreSettings()
    quotas: QuotaSettings = QuotaSettings()
    tenants: dict[TenantName, TenantSettings] = Field(default_factory=dict)
    """Organisations, by id, that are unlike the others."""
    gateway: GatewaySettings = GatewaySettings()
    auth: AuthSettings = AuthSettings()
    runner: RunnerSettings = RunnerSettings()
    autoscaling: AutoscalingSettings = AutoscalingSettings()
    context: ContextSettings = ContextSettings()
    runs: RunsSettings = RunsSettings()
    usage: UsageSettings = UsageSettings()
    http: HttpSettings = HttpSettings()
    functions: list[ModuleName] | None = None
    """Modules whose functions graphs may name, with all inside them. Default: any that can be imported."""
    mcp: dict[ServerName, McpServerSpec] = Field(default_factory=dict)
    """Servers whose tools graphs may call, by the name that graphs call them."""

    @field_validator("models")
    @classmethod
    def _adapters_have_bases(cls, models: list[ModelSpec]) -> list[ModelSpec]:
        return with_bases(models)

    @model_validator(mode="after")
    def _names_agree(self) -> Settings:
        names = [model.name for model in self.models]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"models: {', '.join(sorted(repeated))} is defined more than once")
        for name, index in self.indexes.items():
            if index.model not in names:
                raise ValueError(
                    f"indexes.{name}.model: there is no model {index.model!r}; there are {', '.join(names)}"
                )
        return self

    @model_validator(mode="after")
    def _traffic_agrees(self) -> Settings:
        check_traffic(self.traffic, {model.name: model.task for model in self.models})
        return self

    @model_validator(mode="after")
    def _node_pools_agree(self) -> Settings:
        names = [pool.name for pool in self.node_pools]
        repeated = {name for name in names if names.count(name) > 1}
        if repeated:
            raise ValueError(f"node_pools: {', '.join(sorted(repeated))} is defined more than once")
        heads = [pool.name for pool in self.node_pools if pool.head]
        if len(heads) > 1:
            raise ValueError(f"node_pools: there is one head, but {' and '.join(heads)} say they hold it")
        for where, placed in self.placed():
            if placed.node_pool is not None and placed.node_pool not in names:
                there = ", ".join(names) or "none: name them under `node_pools`"
                raise ValueError(f"{where}.node_pool: there is no {placed.node_pool!r}; there are {there}")
        return self

    def placed(self) -> Iterator[tuple[str, PlacedSpec]]:
        """All that runs on nodes of the cluster, and where in the file it stands."""
        for spec in self.models:
            if isinstance(spec, ReplicatedSpec):
                yield f"models.{spec.name}", spec
        yield "gateway", self.gateway
        yield "runner", self.runner

    @property
    def weights(self) -> dict[str, float]:
        """Of tenants, by name, as pools take them."""
        return {name: tenant.weight for name, tenant in self.tenants.items()}

    @property
    def store_dir(self) -> Path:
        return self.data_dir / "store"

    @property
    def known_keys_s(self) -> float:
        """Seconds for which a known key goes on while the store is out."""
        if self.store.known_keys is not None:
            return self.store.known_keys
        return KNOWN_KEYS_S if self.quotas.when_store_is_out == "local_share" else 0.0

    @property
    def usage_url(self) -> str:
        """Of the database of usage. It may hold a password."""
        given = self.usage.url
        return f"sqlite:///{self.data_dir / 'usage.db'}" if given is None else given.get_secret_value()

    @property
    def pepper_file(self) -> Path:
        """The secret that keys are hashed with."""
        return self.data_dir / "secrets" / "pepper"

    @property
    def data_key_file(self) -> Path:
        """The secret that runs are encrypted with, where the environment has none."""
        return self.data_dir / "secrets" / "data_key"


def load_settings(path: Path) -> Settings:
    """The settings of a file, with every path made absolute.

    Raises `ConfigError` that names the file and every field at fault.
    """
    if not path.is_file():
        raise ConfigError(f"no config file {path}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
    try:
        loaded = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must be a mapping with `models`, not {type(loaded).__name__}")
    try:
        settings = Settings.model_validate(loaded)
    except ValidationError as error:
        problems = "\n".join(f"  {_where(item['loc'])}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{path}:\n{problems}") from error
    return _absolute(settings, path.resolve().parent)


def _where(location: tuple[int | str, ...]) -> str:
    # Where there is a choice of parts, pydantic names its own function for each of them.
    told = [str(part) for part in location if not str(part).startswith("function-wrap[")]
    return ".".join(told) or "the file"


def _absolute(settings: Settings, base: Path) -> Settings:
    indexes = {
        name: index.model_copy(update={"corpus": [_resolve(path, base) for path in index.corpus]})
        for name, index in settings.indexes.items()
    }
    return settings.model_copy(
        update={
            "data_dir": _resolve(settings.data_dir, base),
            "graphs": [_resolve(path, base) for path in settings.graphs],
            "prompts": [_resolve(path, base) for path in settings.prompts],
            "indexes": indexes,
            "models": [_absolute_model(model, base) for model in settings.models],
        }
    )


def _absolute_model(model: ModelSpec, base: Path) -> ModelSpec:
    resolved: dict[str, object] = {
        field: _absolute_source(value, base)
        for field in ("source", "tokenizer")
        if isinstance(value := getattr(model, field, None), str)
    }
    if isinstance(model, RemoteSpec) and model.api_key_file is not None:
        resolved["api_key_file"] = _resolve(model.api_key_file, base)
    if isinstance(model, VllmSpec) and isinstance(model.speculative, DraftSpeculation):
        draft = model.speculative
        resolved["speculative"] = draft.model_copy(update={"source": _absolute_source(draft.source, base)})
    return model.model_copy(update=resolved)


def _absolute_source(source: str, base: Path) -> str:
    return str(_resolve(Path(source), base)) if source.startswith((".", "~")) else source


def _resolve(path: Path, base: Path) -> Path:
    return (base / path.expanduser()).resolve()
