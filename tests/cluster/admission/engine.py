"""An engine of steps, as in algorithm 1 of the paper: each step makes one token for every call in it."""

from __future__ import annotations

from typing import Any

from cluster.admission.queue import INPUT_PRICE, OUTPUT_PRICE, AdmissionQueue, Ask, Capacity, Ticket
from cluster.errors import Overloaded

FAR = 1e9
"""A deadline."""


def ask(tenant: str = "a", prompt: int = 10, output: int = 10, **fields: Any) -> Ask:
    return Ask(**({"deadline": FAR} | fields), tenant=tenant, prompt_tokens=prompt, output_tokens=output)


class Steps:
    """A queue and the engine behind it. One step is one second."""

    def __init__(self, **capacity: int) -> None:
        self.queue = AdmissionQueue(Capacity(**({"sequences": 8} | capacity)))
        self.now = 0.0
        self.inside: dict[Ticket, int] = {}
        """And how much output each makes."""
        self.served: dict[str, float] = {}
        self.order: list[str] = []
        """Tenants, as their calls went in."""
        self.ended: list[Ticket] = []

    def offer(self, asked: Ask, output: int | None = None) -> Ticket:
        ticket = self.queue.offer(asked, self.now)
        ticket.owner = asked.output_tokens if output is None else output
        return ticket

    def fill(self, asked: Ask) -> Overloaded:
        """Offers it until it is refused."""
        while True:
            try:
                self.offer(asked)
            except Overloaded as refused:
                return refused

    def admit(self) -> list[Ticket]:
        admitted = [each for each in self.queue.admit(self.now) if each.state == "running"]
        for ticket in admitted:
            self.inside[ticket] = ticket.owner
            self._serve(ticket, INPUT_PRICE * ticket.ask.prompt_tokens)
            self.order.append(ticket.ask.tenant)
        return admitted

    def step(self) -> None:
        self.admit()
        self.now += 1
        for ticket, output in list(self.inside.items()):
            self.queue.observe(ticket, ticket.output_tokens + 1, self.now)
            self._serve(ticket, OUTPUT_PRICE)
            if ticket.output_tokens >= output:
                del self.inside[ticket]
                self.queue.end(ticket, self.now)
                self.ended.append(ticket)

    def _serve(self, ticket: Ticket, service: float) -> None:
        tenant = ticket.ask.tenant
        self.served[tenant] = self.served.get(tenant, 0.0) + service
