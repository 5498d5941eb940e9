"""What is in a source: how much, how long, of what kind, what occurs twice, and what gives the order away."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from .documents import Document

NUMBERED = re.compile(
    r"[(\[]?(?:(?:step|part|stage|schritt|[ée]tape|paso|fase|passo)\s*)?#?(\d{1,3})\s*[.):\]\u2013\u2014-]",
    re.IGNORECASE,
)
"""How a sentence begins that says which one it is: "1.", "(2)", "Step 3:"."""
OPENING = re.compile(r"\w+", re.UNICODE)
OFTEN = 20
"""How often an opening must occur before it counts as a habit."""
NEARLY_ALWAYS = 0.9
"""In what share of its occurrences an opening must stand at one end of the document to give that end away."""
MOST_OPENINGS = 5
SAMPLES = 3
MOST_SENTENCES = 12
"""Shown of a sample."""
BARS = 20


@dataclass
class Inspection:
    """Counts of one split; :meth:`add` takes one document after the other, so nothing is held but counts."""

    documents: int = 0
    sentences: Counter[int] = field(default_factory=Counter)
    """Sentences of a document -> how many documents have so many."""
    letters: int = 0
    genres: Counter[str] = field(default_factory=Counter)
    samples: list[Document] = field(default_factory=list)
    fingerprints: Counter[int] = field(default_factory=Counter)
    repeating: int = 0
    """Documents in which a sentence occurs twice."""
    numbered: int = 0
    """Documents whose sentences say their own numbers, rising."""
    openings: dict[str, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    """First word -> how often it opens a sentence at all, the first of a document, the last."""

    def add(self, document: Document) -> None:
        """Count a document in."""
        n = len(document.sentences)
        self.documents += 1
        self.sentences[n] += 1
        self.letters += sum(len(sentence) for sentence in document.sentences)
        self.genres[document.genre or ""] += 1
        self.fingerprints[document.fingerprint] += 1
        self.repeating += len(set(document.sentences)) < n
        self.numbered += says_its_numbers(document.sentences)
        if len(self.samples) < SAMPLES:
            self.samples.append(document)
        for place, sentence in enumerate(document.sentences):
            word = OPENING.search(sentence)
            if word:
                counts = self.openings[word[0]]
                counts[0] += 1
                counts[1] += place == 0
                counts[2] += place == n - 1 and n > 1

    @property
    def duplicates(self) -> int:
        """Documents that stood in the split before."""
        return self.documents - len(self.fingerprints)

    @property
    def number_of_sentences(self) -> int:
        return sum(number * count for number, count in self.sentences.items())

    @property
    def letters_of_a_sentence(self) -> float:
        return self.letters / max(1, self.number_of_sentences)

    @property
    def median(self) -> int:
        """Sentences of the document in the middle."""
        before, half = 0, self.documents / 2
        for number, count in sorted(self.sentences.items()):
            before += count
            if before >= half:
                return number
        return 0

    def telling_openings(self) -> list[tuple[str, str, int, float]]:
        """First words that nearly always stand at one end: (word, "first" or "last", how often, share there)."""
        found = []
        for word, (total, *ends) in self.openings.items():
            for end, count in zip(("first", "last"), ends, strict=True):
                if total >= OFTEN and count >= NEARLY_ALWAYS * total:
                    found.append((word, end, total, count / total))
        return sorted(found, key=lambda row: -row[2])


def says_its_numbers(sentences: Sequence[str]) -> bool:
    """Whether at least two sentences, and half of them, begin with a number, and the numbers rise."""
    numbers = [int(match[1]) for match in map(NUMBERED.match, sentences) if match]
    rising = all(first < second for first, second in itertools.pairwise(numbers))
    return len(numbers) >= max(2, len(sentences) / 2) and rising


def warnings(splits: Mapping[str, Inspection]) -> list[str]:
    """What should be known before anything is trained on it: one sentence each."""
    found = []
    names = list(splits)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            common = len(splits[first].fingerprints.keys() & splits[second].fingerprints.keys())
            if common:
                found.append(f"{common} different documents of {second} are in {first} too: scores would be too high.")
    for name, split in splits.items():
        if split.duplicates:
            found.append(f"{name}: {split.duplicates} of {split.documents} documents stand there for a second time.")
        if split.numbered:
            found.append(
                f"{name}: in {split.numbered} of {split.documents} documents the sentences say their own numbers "
                '("1.", "Step 2:"): that is read, not understood. Take them out.'
            )
        for word, end, count, share in split.telling_openings()[:MOST_OPENINGS]:
            found.append(
                f'{name}: of {count} sentences that begin with "{word}", {share:.0%} are the {end} of their document.'
            )
    return found


def inspect(documents: Iterable[Document]) -> Inspection:
    """Read a split once."""
    found = Inspection()
    for document in documents:
        found.add(document)
    return found


# --- as text --------------------------------------------------------------------------------------------------------


def describe(splits: Mapping[str, Inspection], *, width: int = 100) -> str:
    """A table of the splits, how long documents are, and a few of them.

    Args:
        splits: by name.
        width: of a line.
    """
    first = next(iter(splits.values()))
    genres = sorted({genre for split in splits.values() for genre in split.genres if genre})
    rows: list[tuple[str, Sequence[object]]] = [
        ("documents", [split.documents for split in splits.values()]),
        ("sentences", [split.number_of_sentences for split in splits.values()]),
        ("of a document, the median", [split.median for split in splits.values()]),
        ("of a document, the most", [max(split.sentences, default=0) for split in splits.values()]),
        (
            "letters of a sentence",
            [f"{split.letters_of_a_sentence:.1f}" for split in splits.values()],
        ),
        ("documents with a sentence twice", [split.repeating for split in splits.values()]),
        *((f"genre {genre}", [split.genres[genre] for split in splits.values()]) for genre in genres),
    ]
    label = max(len(name) for name, _ in rows)
    lines = [" " * label + "".join(f"  {name:>10}" for name in splits)]
    lines += [f"{name:<{label}}" + "".join(f"  {value:>10}" for value in values) for name, values in rows]
    lines += ["", f"sentences of a document, {next(iter(splits))}", *_histogram(first.sentences, width)]
    for document in first.samples:
        lines += ["", _cut(document.id + (f" ({document.genre})" if document.genre else ""), width)]
        shown = document.sentences[:MOST_SENTENCES]
        lines += [_cut(f"  {place}  {sentence}", width) for place, sentence in enumerate(shown, start=1)]
        if len(document.sentences) > len(shown):
            lines.append(f"  ... and {len(document.sentences) - len(shown)} more")
    return "\n".join(map(_printable, lines))


def _printable(line: str) -> str:
    """Without what a terminal would obey instead of showing it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 3] + "..."


def _histogram(counts: Counter[int], width: int) -> list[str]:
    """A bar for each number of sentences, or for ranges of them where there are many."""
    if not counts:
        return []
    least, most = min(counts), max(counts)
    step = -(-(most - least + 1) // BARS)
    bars = Counter[int]()
    for number, count in counts.items():
        bars[(number - least) // step] += count
    labels = {
        bar: f"{least + bar * step}" if step == 1 else f"{least + bar * step} to {least + (bar + 1) * step - 1}"
        for bar in range(max(bars) + 1)
    }
    margin = max(map(len, labels.values()))
    room = max(10, width - margin - 12)
    longest = max(bars.values())
    return [
        f"  {name:>{margin}}  {'#' * -(-bars[bar] * room // longest)}{' ' * (bars[bar] > 0)}{bars[bar]}"
        for bar, name in labels.items()
    ]
