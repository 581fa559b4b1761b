"""Messages to the exact string a model meets: the only renderer.

Training, local inference and exports all go through `ChatTemplate`, so a student is trained on the very string it meets when
it is served. A chat template is a Jinja program that a model's authors ship with its tokenizer; it runs here in a sandbox,
with the settings and helpers such programs are written for (huggingface.co/docs/transformers/chat_templating).
A rendered text already holds every special token: tokenise it without adding any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from potstill.errors import InputError, ModelNotFoundError
from potstill.gguf_metadata import StringArray, read_metadata
from potstill.rows import Message

Span = tuple[int, int]

# What a template can fail with: its own refusal, its own mistakes, and operations on values it did not foresee.
_TEMPLATE_FAILURES = (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError)
_NO_TEMPLATE_HINT = "choose the model's instruct version, or put a chat_template.jinja beside its tokenizer"
_PROBE = "b7Kq"  # stands for an answer when the end of a turn is looked for; no template writes it


@dataclass(frozen=True, slots=True)
class TrainingText:
    """One text to train on. `spans`: character ranges (start, end) of the assistant's turns, end-of-turn tokens included."""

    text: str
    spans: tuple[Span, ...]

    @property
    def targets(self) -> list[str]:
        """What the student is to write, turn by turn."""
        return [self.text[start:end] for start, end in self.spans]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A chat template and the special tokens it may write. `source` is its Jinja text, as exports store it."""

    source: str
    bos_token: str = ""
    eos_token: str = ""
    name: str = "the model"

    @classmethod
    def from_source(cls, source: str, bos_token: str = "", eos_token: str = "", *, name: str = "the model") -> ChatTemplate:
        """A template from its text; `name` says in errors whose template it is.

        Raises:
            InputError: the text is no valid Jinja.
        """
        try:
            _compile(source)
        except jinja2.TemplateSyntaxError as error:
            where = f"{name}, line {error.lineno} of the template"
            raise InputError("the chat template is not valid Jinja", where=where, found=error.message) from error
        return cls(source, bos_token, eos_token, name)

    @classmethod
    def from_folder(cls, folder: Path) -> ChatTemplate:
        """The template of a model in the hub's layout: chat_template.jinja, else the one in tokenizer_config.json.

        Raises:
            ModelNotFoundError: no such folder.
            InputError: the model has no template, or a file cannot be read.
        """
        if not folder.is_dir():
            raise ModelNotFoundError("the model folder does not exist", where=str(folder))
        config = _read_json(folder / "tokenizer_config.json")
        tokens = {**_read_json(folder / "special_tokens_map.json"), **config}
        file = folder / "chat_template.jinja"
        source = file.read_text(encoding="utf-8") if file.is_file() else _default_template(config.get("chat_template"))
        if not source:
            raise InputError(f"{folder} has no chat template", hint=_NO_TEMPLATE_HINT)
        return cls.from_source(source, _token(tokens.get("bos_token")), _token(tokens.get("eos_token")), name=str(folder))

    @classmethod
    def from_gguf(cls, path: Path) -> ChatTemplate:
        """The template stored in a GGUF file.

        Raises:
            ModelNotFoundError: no such file.
            InputError: the file is damaged or has no template.
        """
        prefix = "tokenizer.ggml."
        names = ("tokens", "bos_token_id", "eos_token_id")
        values = read_metadata(path, {"tokenizer.chat_template", *(prefix + name for name in names)})
        source = values.get("tokenizer.chat_template")
        if not source:
            raise InputError(f"{path} has no chat template", hint="export it again from a model that has one")
        tokens, bos, eos = (values.get(prefix + name) for name in names)
        ids = [-1 if token is None else token for token in (bos, eos)]
        texts = tokens.pick(ids) if isinstance(tokens, StringArray) else {}
        return cls.from_source(source, *(texts.get(token, "") for token in ids), name=str(path))

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        """The string the model meets; with `add_generation_prompt` it ends where the assistant's answer begins.

        Raises:
            InputError: the template refuses the dialogue (no system role, turns that do not alternate) or fails on it.
        """
        try:
            return self._render(messages, add_generation_prompt)
        except _TEMPLATE_FAILURES as error:
            raise self._refusal(messages, error) from error

    def training_text(self, messages: Sequence[Message]) -> TrainingText:
        """The whole dialogue as one text, with every assistant turn in it as a target.

        Raises:
            InputError: see `render`; or the template writes earlier turns differently once others follow (thinking
                templates), so that no one text holds all turns as they are asked for. `training_texts` serves those too.
        """
        joint = self._joint(messages, self._turns(messages))
        if joint is None:
            raise InputError(
                "the chat template rewrites earlier turns, so the turns of this dialogue cannot share one training text",
                where=self.name,
                hint="train on one text per assistant turn",
            )
        return joint

    def training_texts(self, messages: Sequence[Message], *, last_only: bool) -> list[TrainingText]:
        """What to train on: one text where the template allows it, else one per assistant turn, in order.

        Args:
            messages: The dialogue; messages after the last assistant turn are left out.
            last_only: Make only the last assistant turn a target; the earlier ones are context.

        Raises:
            InputError: see `render`; or there is no assistant turn, or the template does not continue its own prompt.
        """
        turns = self._turns(messages)
        if last_only:
            turns = turns[-1:]
        else:
            joint = self._joint(messages, turns)
            if joint is not None:
                return [joint]
        return [TrainingText(prompt + target, ((len(prompt), len(prompt) + len(target)),)) for prompt, target in turns]

    @property
    def end_of_turn(self) -> str:
        """The text that ends an assistant's turn: what the template writes after it, or the tokenizer's eos token.

        Raises:
            InputError: there is neither.
        """
        end = _end_of_turn(self) or self.eos_token
        if not end:
            raise InputError("nothing ends an assistant's turn: neither the chat template nor an eos token", where=self.name)
        return end

    @property
    def stop_tokens(self) -> tuple[str, ...]:
        """The texts at which generation must stop, the end of a turn first."""
        return tuple(dict.fromkeys(token for token in (self.end_of_turn, self.eos_token) if token))

    def _render(self, messages: Sequence[Message], add_generation_prompt: bool) -> str:
        return _compile(self.source).render(
            messages=[message.as_dict() for message in messages],
            add_generation_prompt=add_generation_prompt,
            bos_token=self.bos_token,
            eos_token=self.eos_token,
            tools=None,
            documents=None,
        )

    def _turns(self, messages: Sequence[Message]) -> list[tuple[str, str]]:
        """For every assistant turn the prompt it answers and the target, both as the model meets them."""
        turns = [self._turn(messages, i) for i, message in enumerate(messages) if message.role == "assistant"]
        if not turns:
            raise InputError("the dialogue has no assistant turn to learn from", found=_roles(messages))
        return turns

    def _turn(self, messages: Sequence[Message], index: int) -> tuple[str, str]:
        prompt = self.render(messages[:index], add_generation_prompt=True)
        whole = self.render(messages[: index + 1], add_generation_prompt=False)
        if not whole.startswith(prompt):
            raise InputError(
                "the chat template does not continue its own generation prompt, so no training text can be made",
                where=self.name,
                found=f"the prompt ends with {prompt[-40:]!r}",
                expected="an assistant's turn that begins with the generation prompt",
            )
        answer, end = whole[len(prompt) :], self.end_of_turn
        cut = answer.rfind(end)
        return prompt, answer[: cut + len(end)] if cut >= 0 else answer.rstrip() + end

    def _joint(self, messages: Sequence[Message], turns: Sequence[tuple[str, str]]) -> TrainingText | None:
        """All turns in one text; None where a turn, once others follow, is no longer what it was when it was asked for."""
        last = max(i for i, message in enumerate(messages) if message.role == "assistant")
        text = self.render(messages[: last + 1], add_generation_prompt=False)
        if not all(text.startswith(prompt + target) for prompt, target in turns):
            return None
        return TrainingText(text, tuple((len(prompt), len(prompt) + len(target)) for prompt, target in turns))

    def _refusal(self, messages: Sequence[Message], error: Exception) -> InputError:
        """Names the problem by what would have been accepted; templates word their refusals in many ways."""
        message = getattr(error, "message", None) or str(error)
        found = f"{_roles(messages)} ({message})"
        if messages and messages[0].role == "system" and self._accepts(messages[1:]):
            return InputError(
                "the chat template takes no system message", where=self.name, found=found,
                hint="put the instruction into the first user message",
            )
        spoken = [message.role for message in messages if message.role != "system"]
        if any(one == other for one, other in pairwise(spoken)) or spoken[:1] == ["assistant"]:
            return InputError(
                "the chat template takes no such order of turns", where=self.name, found=found,
                expected="user and assistant in turn, the user first",
            )
        return InputError("the chat template cannot render this dialogue", where=self.name, found=found)

    def _accepts(self, messages: Sequence[Message]) -> bool:
        try:
            self._render(messages, True)
        except _TEMPLATE_FAILURES:
            return False
        return True


def _roles(messages: Sequence[Message]) -> str:
    return ", ".join(message.role for message in messages[:12]) + (", ..." if len(messages) > 12 else "") or "no messages"


@lru_cache(maxsize=64)
def _end_of_turn(template: ChatTemplate) -> str:
    """What the template itself writes to end an assistant's turn, without the white space after it; "" where nothing.

    Some templates close a whole dialogue with the eos token, after the turn's own end ("<|end|><|endoftext|>"). The model
    stops at the first of the two, and only that one stands there when another turn follows; so the two renderings are compared.
    """
    asked, answer = Message("user", "?"), Message("assistant", _PROBE)
    last = template.render([asked, answer], add_generation_prompt=False).rpartition(_PROBE)[2].strip()
    followed = template.render([asked, answer, asked], add_generation_prompt=True).rpartition(_PROBE)[2].lstrip()
    turn_end = last.removesuffix(template.eos_token).rstrip()
    return turn_end if turn_end and followed.startswith(turn_end) else last


class _GenerationBlock(Extension):
    """{% generation %}...{% endgeneration %}, by which some templates mark the assistant's text: its content, unchanged."""

    tags = {"generation"}  # noqa: RUF012  (jinja2 declares it as a plain class attribute)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as it stands; Jinja's own filter escapes for HTML, which no model was trained on."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


@lru_cache(maxsize=64)
def _compile(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
    return environment.from_string(source)


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError("the tokenizer's settings are not JSON", where=str(path), found=error) from error
    if not isinstance(value, dict):
        raise InputError("the tokenizer's settings are no JSON object", where=str(path), found=type(value).__name__)
    return value


def _default_template(value: Any) -> str | None:
    """The template of tokenizer_config.json: a text, or a list of named ones of which "default" is the one for plain chat."""
    if isinstance(value, list):
        named = {entry.get("name"): entry.get("template") for entry in value if isinstance(entry, Mapping)}
        value = named.get("default")
    return value if isinstance(value, str) else None


def _token(value: Any) -> str:
    """A special token as tokenizers store it: a text, or an object with its text under "content"."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""
