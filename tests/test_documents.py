import pytest

from sentorder.data.documents import Document, Skipped, cleaned, keep_orderable
from sentorder.errors import UserError


def test_documents_with_nothing_to_order_are_counted() -> None:
    texts = [["a", "b"], ["a"], [], ["a", " "], ["c", "d", "e"], ["", "x"]]
    documents = [Document(str(number), text, origin=f"f, line {number}") for number, text in enumerate(texts)]
    torn = [Skipped("whose pairs contradict each other", f"f, line {number}") for number in (6, 9)]
    notes: list[str] = []
    kept = list(keep_orderable(iter([*documents, *torn]), "f", notes))
    assert [document.id for document in kept] == ["0", "4"]
    assert notes == [
        "f: skipped 2 of 8 documents with fewer than two sentences (the first: f, line 1).",
        "f: skipped 2 of 8 documents with an empty sentence (the first: f, line 3).",
        "f: skipped 2 of 8 documents whose pairs contradict each other (the first: f, line 6).",
    ]
    with pytest.raises(UserError, match="f: there is nothing to order in it. f: skipped 1 of 1 documents with fewer"):
        list(keep_orderable(documents[1:2], "f", []))


def test_white_space_goes_and_half_characters_are_refused() -> None:
    torn = Skipped("that are torn", "f, line 2")
    assert list(cleaned([Document("a", [" b\n", "\tc d "]), torn])) == [Document("a", ["b", "c d"]), torn]
    for document in (Document("a", ["b \ud83d"]), Document("\ud800", []), Document("a", [], "\udfff")):
        with pytest.raises(UserError, match="holds half a character"):
            list(cleaned([document]))
