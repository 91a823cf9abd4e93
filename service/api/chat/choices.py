"""The choices of a completion: texts or calls of functions, with the probabilities of their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from service.api.chat.calls import Call, read_call
from service.api.chat.output import ToolUse
from service.api.chat.schemas import (
    AssistantMessage,
    CalledFunction,
    Choice,
    ChoiceLogprobs,
    Delta,
    DeltaCall,
    DeltaFunction,
    FinishReason,
    LikelyToken,
    ToolCall,
    WrittenToken,
)
from service.engine.jobs import Piece
from service.pipeline.prepare import Written
from vlm import TokenLogprob, Vlm

LEAST_LOGPROB = -9999.0


@dataclass
class ChoiceWriter:
    """Write the answers to one request, whole or in pieces."""

    request_id: str
    vlm: Vlm
    tool_use: ToolUse | None
    _calls: dict[int, Call] = field(default_factory=dict, repr=False)

    def choice(self, index: int, written: Written) -> Choice:
        """Return a whole answer."""
        message = AssistantMessage(role="assistant", content=written.text, refusal=None)
        if self.tool_use is not None and (
            read := read_call(self.tool_use, written.text, written.finish_reason == "stop")
        ):
            function = CalledFunction(name=read[0], arguments=read[1])
            call = ToolCall(id=self._call_id(index), type="function", function=function)
            message = AssistantMessage(role="assistant", content=None, refusal=None, tool_calls=[call])
        return Choice(
            index=index,
            message=message,
            logprobs=None if written.logprobs is None else self._logprobs(written.logprobs, is_first=True),
            finish_reason=self.finish_reason(written),
        )

    def start(self) -> Delta:
        """Return the first piece of every answer, with the role."""
        return Delta(role="assistant", content="" if self.tool_use is None else None, refusal=None)

    def deltas(self, piece: Piece) -> Iterator[Delta]:
        """Yield what is new of an answer."""
        if self.tool_use is None:
            yield Delta(content=piece.text)
            return
        call = self._call(piece.choice)
        was_known = call.name is not None
        yield from self._call_deltas(piece.choice, call, call.push(piece.text), was_known)

    def rest(self, index: int, written: Written) -> Iterator[Delta]:
        """Yield what was held back of an answer that has ended."""
        if self.tool_use is not None:
            call = self._call(index)
            was_known = call.name is not None
            yield from self._call_deltas(index, call, call.flush(written.finish_reason == "stop"), was_known)

    def logprobs(self, piece: Piece, is_first: bool) -> ChoiceLogprobs | None:
        """Return the probabilities of the tokens in a piece, None if it has none."""
        return self._logprobs(piece.logprobs, is_first) if piece.logprobs else None

    def finish_reason(self, written: Written) -> FinishReason:
        """Return why an answer ended, as OpenAI's API says it: of a function that was named it says stop."""
        is_call = self.tool_use is not None and not self.tool_use.is_named
        return "tool_calls" if is_call and written.finish_reason == "stop" else written.finish_reason

    def _call(self, index: int) -> Call:
        assert self.tool_use is not None, "only calls are read as such"
        return self._calls.setdefault(index, Call(self.tool_use))

    def _call_deltas(self, index: int, call: Call, arguments: str, was_known: bool) -> Iterator[Delta]:
        if call.name is not None and not was_known:
            function = DeltaFunction(name=call.name, arguments=arguments)
            begun = DeltaCall(index=0, id=self._call_id(index), type="function", function=function)
            yield Delta(tool_calls=[begun])
        elif arguments:
            yield Delta(tool_calls=[DeltaCall(index=0, function=DeltaFunction(arguments=arguments))])

    def _call_id(self, index: int) -> str:
        return f"call-{self.request_id}-{index}"

    def _logprobs(self, logprobs: Sequence[TokenLogprob], is_first: bool) -> ChoiceLogprobs:
        content = [self._token(one, is_first and at == 0) for at, one in enumerate(logprobs)]
        return ChoiceLogprobs(content=content, refusal=None)

    def _token(self, one: TokenLogprob, is_first: bool) -> WrittenToken:
        likely = [self._likely(token_id, value, is_first) for token_id, value in one.top]
        return WrittenToken(**dict(self._likely(one.token_id, one.logprob, is_first)), top_logprobs=likely)

    def _likely(self, token_id: int, logprob: float, is_first: bool) -> LikelyToken:
        spelled = self.vlm.vocabulary.piece(token_id, is_first)
        return LikelyToken(
            token=spelled.decode(errors="replace"), logprob=max(logprob, LEAST_LOGPROB), bytes=list(spelled)
        )
