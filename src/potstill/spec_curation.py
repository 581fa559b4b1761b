"""The job file's section `curation`: which answers are learnt from."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from potstill.spec_models import ModelSpec, Section

Unit = Annotated[float, Field(ge=0.0, le=1.0)]

_CODES = (
    "ace af am an ar ary arz as az ba bcl be bg bn br bs ca crh cs cy da de dz el en eo es et eu ext fa fi fo fr fuv fy "
    "ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab kik kk km kn ko ku ky la lb lg "
    "lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl nn no nso oc om or pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl "
    "sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk ur uz uzs vec vi vo wa wuu xh yo yue zh zu"
)
# The languages that answers can be told to be in, by ISO 639: those that py3langid knows.
LANGUAGES = frozenset(_CODES.split())


class BalanceSpec(Section):
    """How rows of frequent groups are thinned out."""

    by: str = "label"
    """What makes the groups: label, or the name of another field of the rows, such as topic."""
    ratio: Annotated[float, Field(ge=1.0)] = 3.0
    """No group keeps more than this many times the rows of the smallest group that has at least 8."""


class SemanticSpec(ModelSpec):
    """The embedding model that tells which rows mean the same: a hub id, a folder, or an endpoint with /embeddings."""

    threshold: Annotated[float, Field(gt=0.0, le=1.0)] = 0.95
    """Rows whose embeddings have a cosine similarity of at least this mean the same."""

    @model_validator(mode="after")
    def _can_embed(self) -> SemanticSpec:
        if self.engine is not None or self.batch:
            raise ValueError("an embedding model answers at an OpenAI-style endpoint or runs here: no 'engine', no 'batch'")
        if self.path is not None and self.path.endswith(".gguf"):
            raise ValueError("an embedding model is a folder in the hub's layout, a hub id or an endpoint")
        return self


class CurationSpec(Section):
    """Which answers are kept."""

    deduplicate: Literal["near", "exact", "none"] = "near"
    """Which rows that ask the same are dropped: those that are nearly alike, those that are equal, or none."""
    semantic: SemanticSpec | None = None
    """The embedding model by which rows that mean the same are dropped too; null: none is asked."""
    balance: BalanceSpec | None = None
    """How rows of frequent groups are thinned out: label, the name of a field, or a mapping; null: not at all."""
    decontaminate: bool | Literal["strict"] = True
    """Drop training rows that share 13 words in a row with a held-out row; strict: 8 words."""
    verify: Literal["auto", "none"] = "auto"
    """auto drops answers that contradict the gold answer; none keeps them."""
    language: str | list[str] = "auto"
    """auto drops answers in a language that neither the prompt nor the gold answer is in; any keeps them; or the codes of the
    languages that answers may be in, such as en or [en, de]."""
    length: Literal["auto", "any"] = "auto"
    """auto drops answers that are far longer or far shorter than the others; any keeps them."""
    repetition: Literal["auto", "any"] = "auto"
    """auto drops answers that go round in circles; any keeps them."""
    personal_data: Literal["keep", "redact", "drop"] = "keep"
    """What becomes of e-mail addresses, telephone, card, account and identity numbers, IP addresses and secrets: counted alone,
    replaced by placeholders such as [EMAIL], or the row is dropped."""
    min_agreement: Unit | None = None
    """The least share of a teacher's answers that agree on the one taken, where it was voted on."""
    min_judge_score: Annotated[float, Field(ge=0.0)] | None = None
    """The least score of the judge, where one scored the answer."""

    @field_validator("balance", mode="before")
    @classmethod
    def _a_name_is_a_field(cls, value: Any) -> Any:
        return {"by": value} if isinstance(value, str) else value

    @field_validator("semantic", mode="before")
    @classmethod
    def _a_name_is_a_model(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value

    @field_validator("language")
    @classmethod
    def _known(cls, value: str | list[str]) -> str | list[str]:
        unknown = [code for code in ([value] if isinstance(value, str) else value) if code not in LANGUAGES]
        if value in ("auto", "any") or (value and not unknown):
            return value
        raise ValueError("expected auto, any, or codes of languages such as en, or [en, de]")
