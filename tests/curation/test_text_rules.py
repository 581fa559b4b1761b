"""Answers that go round in circles, and answers in a language that was not wanted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from py3langid.langid import MODEL_FILE, LanguageIdentifier

from potstill.curation.text_rules import ForeignLanguage, Repetitive, language_of
from potstill.rows import Row
from potstill.spec_curation import LANGUAGES
from potstill.tasks import Task, get_task

Make = Callable[..., Row]
Said = Callable[..., list[str | None]]

ENGLISH = "The parcel left our warehouse on Monday and should reach you before the end of the week."
GERMAN = "Das Paket hat unser Lager am Montag verlassen und sollte noch vor dem Ende der Woche bei Ihnen ankommen."
FRENCH = "Le colis a quitté notre entrepôt lundi et devrait arriver chez vous avant la fin de la semaine."
JAPANESE = "荷物は月曜日に当社の倉庫を出発し、週末までにはお手元に届く予定です。もうしばらくお待ちください。"
LONG = " ".join(f"Shelf {n} has {n * 3} books, {n * n} of which are lent to readers from town {n + 7}." for n in range(9))
ASKED = "Can you please tell me when the parcel that I ordered last week is going to arrive at my house?"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("We can do it. " * 12, "repeated"),
        (f"{ENGLISH}\n" + "and so on and on\n" * 9, "repeated"),
        ("Step one:\nDone.\n" + "Check the box.\n" * 4, "4 of its 6 lines are 'Check the box.'"),
        ("また明日。" * 60, "repeats itself"),
        ("ab" * 300, "repeats itself"),
        (f"{LONG} {'so ' * 40}", "'so so so so' 3"),
        (f"{LONG} {'and then we go back ' * 8}to the start", "repeated"),
        (f"{LONG} {'17+4=21,' * 40} or so.", "repeats itself"),
        (f"Seventeen and four: {'17+4=21,' * 40}", "repeats itself"),
        (f"{LONG} {'Heread17/47=<<47/60=66>>16' * 9}", "repeats itself"),
    ],
)
def test_an_answer_in_circles_is_rejected(text: Task, generated: Make, answer: str, reason: str) -> None:
    rule = Repetitive(text)
    assert rule.name == "repetitive"
    assert reason in (rule.reject(generated(ASKED, answer)) or "")
    assert rule.reject(generated(ASKED, answer, gold=answer)) is None, "the gold answer does so too"


@pytest.mark.parametrize(
    "answer",
    [
        ENGLISH,
        "Yes, yes, yes!",
        "1 + 2 = 3\n3 + 3 = 6\n6 + 4 = 10\n10 + 5 = 15\n15 + 6 = 21\n21 + 7 = 28\n28 + 8 = 36\n#### 36",
        "\n".join(f"| item {n} | {n * 7} | in stock |" for n in range(12)),
        "\n".join(f"{n}. Open the drawer number {n} and take out the folder that lies in it." for n in range(4)),
        JAPANESE * 3,
        f"{LONG} Hip, hip, hooray! Hip, hip, hooray! Hip, hip, hooray! Hip, hip, hooray!",
        f"{LONG}\n{'-' * 300}\nThe end.",
        f"{LONG} https://example.org/{'-'.join(f'part{n}' for n in range(40))}",
    ],
)
def test_lists_sums_and_refrains_are_no_circles(text: Task, generated: Make, answer: str) -> None:
    assert Repetitive(text).reject(generated(ASKED, answer)) is None


@pytest.mark.parametrize(
    ("written", "code"),
    [(ENGLISH, "en"), (GERMAN, "de"), (FRENCH, "fr"), (JAPANESE, "ja"), ("It is 42.", None), ("x = y " * 30, None)],
)
def test_a_language_is_told_where_there_is_enough_prose(written: str, code: str | None) -> None:
    assert language_of(written) == code


@pytest.mark.parametrize("answer", [GERMAN, FRENCH, JAPANESE])
def test_an_answer_in_another_language_than_the_prompts_is_rejected(
    text: Task, generated: Make, said: Said, answer: str
) -> None:
    rule = ForeignLanguage(text, None)
    assert rule.name == "foreign_language"
    (reason,) = said(rule, [generated(ASKED, answer)], text)
    assert reason is not None
    assert "the prompt is in 'en'" in reason
    assert answer[:20] in reason


@pytest.mark.parametrize(
    ("prompt", "answer", "gold"),
    [
        (ASKED, ENGLISH, None),
        (GERMAN, GERMAN, None),
        (f"Say this in German: {ENGLISH}", GERMAN, None),
        (f"Translate this for me, will you: {ENGLISH}", FRENCH, None),
        (ASKED, GERMAN, f"{GERMAN} Vielen Dank für Ihre Geduld."),
        (ASKED, "Oui.", None),
        (ASKED, f"```\n{FRENCH}\n```", None),
    ],
)
def test_a_language_that_is_wanted_is_kept(
    text: Task, generated: Make, said: Said, prompt: str, answer: str, gold: str | None
) -> None:
    assert said(ForeignLanguage(text, None), [generated(prompt, answer, gold=gold)], text) == [None]


def test_rows_that_are_about_another_language_are_kept(text: Task, generated: Make, said: Said) -> None:
    rows = [generated(f"{ASKED} {n}", GERMAN if n % 2 else ENGLISH) for n in range(20)]
    assert said(ForeignLanguage(text, None), rows, text) == [None] * 20


def test_some_of_many_rows_in_another_language_are_rejected(text: Task, generated: Make, said: Said) -> None:
    answer = "You can tell by the page of the parcel when it is going to arrive at the house that you named last week."
    rows = [generated(f"{ASKED} {n}", GERMAN if n % 25 == 0 else answer) for n in range(200)]
    reasons = said(ForeignLanguage(text, None), rows, text)
    assert [number for number, reason in enumerate(reasons) if reason is not None] == list(range(0, 200, 25))


def test_the_job_names_the_languages(text: Task, generated: Make, said: Said) -> None:
    rows = [generated(ASKED, answer) for answer in (ENGLISH, GERMAN, FRENCH)]
    reasons = said(ForeignLanguage(text, ["de", "fr"]), rows, text)
    assert [reason is not None for reason in reasons] == [True, False, False]
    assert "wanted: de, fr" in (reasons[0] or "")


def test_labels_are_in_no_language(generated: Make, said: Said) -> None:
    task = get_task("nli")
    assert said(ForeignLanguage(task, ["de"]), [generated(ASKED, ENGLISH)], task) == [None]


def test_the_job_file_knows_the_languages_that_the_identifier_knows() -> None:
    known = set(LanguageIdentifier.from_model_file(MODEL_FILE).labels)
    assert known - LANGUAGES == {"zxx"}, "zxx is no language"
    assert known >= LANGUAGES
