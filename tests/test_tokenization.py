import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentorder.data.document_tables import to_dataset
from sentorder.data.documents import Document
from sentorder.data.tokenization import describe_cuts, encode_documents, fair_budget, tokenize
from sentorder.encoders import load_tokenizer
from sentorder.errors import UserError


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(20, 400))
def test_the_budget_is_the_largest_that_fits(lengths: list[int], max_length: int) -> None:
    budget = fair_budget(lengths, max_length)

    def used(limit: int) -> int:
        return sum(min(length, limit) for length in lengths)

    assert used(budget) <= max_length
    assert budget >= max(lengths) or used(budget + 1) > max_length


def test_padding_and_truncation_in_the_tokenizer_file_do_not_leak(tiny_encoder: str) -> None:
    tokenizer = load_tokenizer(tiny_encoder)
    long = "the cat sat on the mat and looked at the dog " * 10
    columns = encode_documents([[long, "a cat"]], tokenizer, 512)
    first, second = columns["sentence_ids"][0]
    assert len(first) > 100 and tokenizer.decode(first).split()[:3] == ["the", "cat", "sat"]
    assert 2 <= len(second) < 16 and tokenizer.pad_token_id not in second
    assert tokenizer.cls_token_id not in first and tokenizer.sep_token_id not in first
    assert columns["length"] == [len(first) + len(second) + 2] and columns["cut"] == [0]


def test_every_sentence_survives_and_cuts_are_counted(tiny_encoder: str, documents: list[Document]) -> None:
    tokenizer = load_tokenizer(tiny_encoder)
    texts = [document.sentences for document in documents[:50]]
    whole = encode_documents(texts, tokenizer, 10_000)
    cut = encode_documents(texts, tokenizer, 48)
    for row, sentences in enumerate(texts):
        kept, full = cut["sentence_ids"][row], whole["sentence_ids"][row]
        assert len(kept) == len(sentences)
        assert all(part == ids[: len(part)] and part for part, ids in zip(kept, full, strict=True))
        assert cut["length"][row] == sum(len(part) + 1 for part in kept) <= 48
        assert cut["cut"][row] == sum(map(len, full)) - sum(map(len, kept))
    assert sum(cut["cut"]) > 0
    table = tokenize(to_dataset(documents[:50]), tokenizer, 48)
    total = sum(whole["length"])
    longer = int((np.asarray(cut["cut"]) > 0).sum())
    assert describe_cuts(table) is not None
    assert f"{longer} of 50 documents" in str(describe_cuts(table))
    assert f"{sum(cut['cut'])} of {total} tokens were cut" in str(describe_cuts(table))
    assert describe_cuts(tokenize(to_dataset(documents[:50]), tokenizer, 10_000)) is None


def test_too_many_sentences_are_refused_not_dropped(tiny_encoder: str) -> None:
    with pytest.raises(UserError, match="has 40 sentences, and an encoder of 64 tokens takes 32 at most"):
        encode_documents([["a cat"] * 40], load_tokenizer(tiny_encoder), 64)
