"""What a person says of replicas: how many there are, or between which numbers they come and go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from cluster.spec import Spec

MOST_REPLICAS = 1024


class ReplicaRange(Spec):
    """Replicas that come and go with what is asked of them."""

    min: int = Field(default=0, ge=0, le=MOST_REPLICAS)
    """0: none while nothing comes. The next call waits until there is one."""
    max: int = Field(ge=1, le=MOST_REPLICAS)
    at_once: int | None = Field(default=None, ge=1, le=65536)
    """Calls that one replica works on at the same time. Default: of a model that writes its `max_num_seqs`,
    of one that embeds 1, of the runner half of its `max_ongoing_requests`."""

    @model_validator(mode="after")
    def _in_order(self) -> ReplicaRange:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) must be at most max ({self.max})")
        return self


class ScaledSpec(Spec):
    """What has replicas."""

    replicas: Annotated[int, Field(ge=1, le=MOST_REPLICAS)] | ReplicaRange = 1
    """A number, or `{min: 0, max: 4}`."""

    @property
    def scales(self) -> bool:
        """Whether they come and go."""
        return isinstance(self.replicas, ReplicaRange)

    @property
    def least_replicas(self) -> int:
        return self.replicas if isinstance(self.replicas, int) else self.replicas.min

    @property
    def most_replicas(self) -> int:
        return self.replicas if isinstance(self.replicas, int) else self.replicas.max

    @property
    def at_once(self) -> int:
        """Calls that one replica works on at the same time."""
        said = None if isinstance(self.replicas, int) else self.replicas.at_once
        return said or self.usual_at_once

    @property
    def usual_at_once(self) -> int:
        """The same, where nobody says it."""
        return 1
