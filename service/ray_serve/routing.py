"""Choose the Ray replica of a request: the one that has its frame cached, else the less busy of two.

Only headers are read; front.py names the frame.
"""
# pyright: reportMissingImports=false

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

CROWDED = 8
EPISODE = "episode:"
"""As in bodies.py, which this file does not import: it runs in every process of Ray's."""


class FrameRouter(RequestRouter):
    """Send requests about one frame to one replica while that is not crowded.

    Every proxy finds the same home of a frame by rendezvous hashing; when a replica dies
    only its own frames move. A home that is dead or has `crowded` requests more than the idlest replica is
    passed over, so that a popular frame is encoded twice rather than waited for. An episode stays at a
    home that lives.
    """

    def initialize_state(self, crowded: int = CROWDED, **_: Any) -> None:
        """Take `request_router_kwargs` of the deployment."""
        self._crowded = crowded

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Return the replicas to try, best rank first; within a rank Ray takes the least busy one."""
        if not candidate_replicas:
            return []
        any_two = random.sample(candidate_replicas, min(2, len(candidate_replicas)))
        if pending_request is None:
            return [any_two]
        pending_request.routing_context.should_backoff = True
        frame = pending_request.metadata.session_id
        if not frame:
            return [any_two]
        names = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        home = names[home_of(frame, names)]
        if frame.startswith(EPISODE):  # which nobody else holds
            return [[home], any_two]
        return [any_two] if self._is_crowded(home, candidate_replicas) else [[home], any_two]

    def _is_crowded(self, home: RunningReplica, others: Iterable[RunningReplica]) -> bool:
        in_flight = self._in_flight
        return in_flight(home) >= min(map(in_flight, others)) + self._crowded

    @property
    def _in_flight(self) -> Callable[[RunningReplica], int]:
        known = self.replica_queue_len_cache
        return lambda replica: known.get(replica.replica_id) or 0


def home_of(frame: str, replicas: Iterable[str]) -> str:
    """Return the replica with the highest hash of (frame, replica): the home of a frame."""

    def weight(replica: str) -> bytes:
        return hashlib.blake2b(f"{replica}\0{frame}".encode(), digest_size=8).digest()

    return max(replicas, key=weight)
