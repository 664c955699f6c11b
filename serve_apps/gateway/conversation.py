"""A call that names a `contextId`: what was said before it goes in, what is said in it is kept.

    kept:  history                    sent:  system turns, history, the call's other turns
    after: history + turns + reply    appended in one step, only when the call succeeded

A context that does not exist yet is made by its first turn. Two calls at once both keep their turns, in the
order in which they end. System turns are instructions for the call, not part of the conversation.
"""

from __future__ import annotations

from cluster.interface import Batch
from cluster.messages import Message
from runtime.context.model import Context
from runtime.context.store import ContextStore
from serve_apps.gateway.deps import Request
from serve_apps.translators.openai_replies import ContextVersion, assistant_turn

_INSTRUCTIONS = ("system", "developer")


class Conversation:
    """One call's view of a stored context."""

    def __init__(self, contexts: ContextStore, tenant: str, context: Context) -> None:
        self._contexts = contexts
        self._tenant = tenant
        self._context = context

    @property
    def history(self) -> list[Message]:
        """The turns so far, oldest first."""
        return self._context.session_history

    @property
    def size(self) -> int:
        """Characters of text in the history, roughly."""
        return sum(len(str(message.content)) for message in self.history)

    def prompt(self, messages: list[Message]) -> list[Message]:
        """What the model reads when these are the messages of the call."""
        standing = self._context.system_instructions
        instructions = [Message(role="system", content=standing)] if standing else []
        instructions += [message for message in messages if message.role in _INSTRUCTIONS]
        return [*instructions, *self.history, *turns(messages)]

    async def keep(self, new: list[Message], reply: Message) -> ContextVersion:
        """Appends the call's turns and their reply. Raises `StoreUnavailable`, `ContextTooLarge`."""
        context_id = self._context.context_id
        version = await self._contexts.append(self._tenant, context_id, [*turns(new), reply])
        return ContextVersion(context_id, version)

    async def remember(self, new: list[Message], events: Batch) -> ContextVersion:
        """As `keep`, of a reply as a model gave it."""
        return await self.keep(new, assistant_turn(events))


async def open_conversation(request: Request, context_id: str | None) -> Conversation | None:
    """The conversation that the call continues, if it names one. Raises `InvalidName`, `StoreUnavailable`."""
    if context_id is None:
        return None
    contexts, tenant = request.gateway.contexts, request.caller.tenant
    context = await contexts.load(tenant, context_id)
    request.exchange.added_headers.append((b"x-context-id", context_id.encode()))
    return Conversation(contexts, tenant, context)


def turns(messages: list[Message]) -> list[Message]:
    """The messages that are part of the conversation."""
    return [message for message in messages if message.role not in _INSTRUCTIONS]
