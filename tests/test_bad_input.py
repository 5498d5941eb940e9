"""What people hand in by mistake, and what only looks like one, through the commands as a user types them.

Each row of a table is one process. A mistake is one sentence (with the file, line or flag, and the way out), exit code
2, and nothing is written; what is odd but right works, and says what it left out.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from tests.conftest import REPOSITORY, Run, hear_signals

Rows = list[list[str]]


GOOD: Rows = [[f"The sun rose on day {day}.", "It was noon.", "It set."] for day in range(10)]
SCRIPTS: Rows = [
    ["مرحبا بالعالم", "كيف الحال؟", "בסדר גמור"],
    ["😀😀", "👩‍👩‍👧 naïve", "🇩🇪"],
    ["今日は良い天気です", "散歩に行きました", "疲れました"],
    ["a zero \0 byte", "a line\u2028separator", "\ufeffa mark in the middle"],
]
SKIPPED: Rows = [["alone"], [], ["one", "  "], ["", "two"]]
LONG: Rows = [["word" + " word" * 20_000, "A short one.", "Another."], ["x" * 100_000, "A short one.", "Another."]]
DUPLICATES: Rows = [["the same", "the same", "the same"], ["again", "again"]]
MANY: Rows = [[f"Sentence {number}." for number in range(2000)]]


def lines(rows: Rows) -> str:
    return "".join(json.dumps({"sentences": row}, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder full of files of all kinds."""
    texts = {
        "good.jsonl": lines(GOOD),
        "empty.jsonl": "",
        "blank.jsonl": "\n  \n\n",
        "broken.jsonl": lines(GOOD[:1]) + '{"sentences": [\n',
        "deep.jsonl": '{"sentences": ' + "[" * 100_000 + "\n",
        "no-key.jsonl": lines(GOOD[:2]) + '{"story": "a. b."}\n',
        "no-list.jsonl": lines(GOOD[:2]) + '{"sentences": "a. b."}\n',
        "number.jsonl": lines(GOOD[:2]) + '{"sentences": ["a", 3]}\n',
        "half.jsonl": '{"sentences": ["a", "b \\ud83d"]}\n',
        "single.jsonl": lines([["alone"], []]),
        "two.jsonl": lines(GOOD[:2]),
        "plain.txt": "One sentence.\nAnother one.\n",
        "plain.doc": "One sentence.\nAnother one.\n",
        "list.json": json.dumps([{"sentences": GOOD[0]}]),
        "note.txt": "[1] A text that begins with a bracket.\n{2} Another line.\n",
        "many.jsonl": lines([GOOD[0], *MANY]),
        "skipped.jsonl": lines(GOOD + SKIPPED),
        "duplicates.jsonl": lines(DUPLICATES * 2),
        "scripts.jsonl": lines(SCRIPTS),
        "long.jsonl": lines(GOOD + LONG),
        "bad.yaml": "speed: 3\n",
        "torn.yaml": "speed: [3\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    everything = lines(GOOD + SCRIPTS + LONG + DUPLICATES + SKIPPED)
    (tmp_path / "windows.jsonl").write_bytes(b"\xef\xbb\xbf" + everything.replace("\n", "\r\n").encode())
    (tmp_path / "latin.jsonl").write_bytes((lines(GOOD) + '{"sentences": ["Grüße.", "b"]}').encode("latin-1"))
    (tmp_path / "latin.txt").write_bytes("Eins.\nGrüße.\n".encode("latin-1"))
    (tmp_path / "wide.jsonl").write_bytes(lines(GOOD).encode("utf-16"))
    for folder in ("nothing", "torn", "spoilt", "taken", "parent/model"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "torn" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "spoilt" / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "spoilt" / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "magic"}}')
    (tmp_path / "taken" / "arguments.yaml").write_text("")
    (tmp_path / "parent" / "model" / "config.json").write_text("{}")
    Dataset.from_dict({"story": ["a"], "title": ["b"]}).save_to_disk(str(tmp_path / "columns"))
    splits = {name: Dataset.from_dict({"sentences": GOOD[:3]}) for name in ("train", "validation")}
    DatasetDict(splits).save_to_disk(str(tmp_path / "splits"))
    return tmp_path


TRAIN = "train --model_name_or_path ENCODER --dataset "
EVALUATE = "evaluation --model_path MODEL "
PREDICT = "predict --model_path MODEL "

MISTAKES = [
    # a file
    (TRAIN + "missing.jsonl", "missing.jsonl: there is no such file"),
    (TRAIN + "empty.jsonl", "empty.jsonl: the file holds no documents"),
    (TRAIN + "blank.jsonl", "blank.jsonl: the file holds no documents"),
    (TRAIN + "good.jsonl/inner.jsonl", "good.jsonl/inner.jsonl: cannot be read (Not a directory)"),
    (TRAIN + "nothing", "--dataset nothing: the folder holds no files"),
    (TRAIN + "plain.doc", "plain.doc: this layout is not known. Known are parquet ("),
    (TRAIN + "plain.txt", "plain.txt: 1 different groups of documents cannot be split"),
    (TRAIN + "good.jsonl --language German", "--language German: give a code of two or three letters, such as de."),
    (TRAIN + "good.jsonl --stride 3", "--stride 3: goes with --window; give that too."),
    (TRAIN + "good.jsonl --window 1", "--window 1: must be"),
    (TRAIN + "stories --language de", "--language: has no meaning for stories, which is bundled."),
    (TRAIN + "tales", "--dataset tales: there is no data set and no file of that name"),
    (TRAIN + "latin.jsonl", "latin.jsonl, line 11: not UTF-8 text; convert"),
    (TRAIN + "wide.jsonl", "wide.jsonl, line 1: not UTF-8 text; convert"),
    (EVALUATE + "--dataset missing.tsv", "missing.tsv: there is no such file"),
    (PREDICT + "missing.txt", "missing.txt: there is no such file"),
    (PREDICT + "nothing", "nothing: cannot be read (Is a directory)"),
    (PREDICT + "latin.txt", "latin.txt, line 2: not UTF-8 text; convert"),
    (PREDICT, "standard input: there is no text. Give one sentence per line"),
    (PREDICT + "blank.jsonl", "blank.jsonl: the file holds no documents"),
    # a line
    (TRAIN + "broken.jsonl", "broken.jsonl, line 2: not valid JSON"),
    (PREDICT + "broken.jsonl", "broken.jsonl, line 2: not valid JSON"),
    (TRAIN + "deep.jsonl", "deep.jsonl, line 1: not a document (the JSON is nested too deeply)"),
    (TRAIN + "no-key.jsonl", 'no-key.jsonl, line 3: expected "sentences" (or "shuffled_sentences"'),
    (TRAIN + "no-list.jsonl", 'no-list.jsonl, line 3: "sentences" must be a list of strings'),
    (TRAIN + "number.jsonl", 'number.jsonl, line 3: "sentences" must be a list of strings'),
    (TRAIN + "half.jsonl", "half.jsonl, line 1: 'b \\ud83d' holds half a character"),
    (PREDICT + "skipped.jsonl", "skipped.jsonl, line 12: has an empty sentence or none at all"),
    # a document
    (TRAIN + "single.jsonl", "single.jsonl: there is nothing to order in it. single.jsonl: skipped 2 of 2"),
    (TRAIN + "two.jsonl", "two.jsonl: 2 different documents cannot be split into train, validation and test"),
    (
        TRAIN + "train=many.jsonl --backbone joint --eval_strategy no",
        "many.jsonl, line 2: has 2000 sentences, and an encoder of 512 tokens",
    ),
    # columns and splits
    (TRAIN + "columns", 'columns: expected "sentences" (or "shuffled_sentences" and "gold_order", '),
    (TRAIN + "good.jsonl --columns sentences=steps", "line 1: --columns names 'steps', which is not there; there is"),
    (TRAIN + "good.jsonl --columns steps", "--columns steps: expected KIND=COLUMN,... with the kinds sentences"),
    (TRAIN + "good.jsonl --format excel", "--format excel: choose one of parquet, sind, json, jsonl"),
    (EVALUATE + "--dataset plain.txt --format csv", 'plain.txt, line 1: expected "sentences"'),
    (PREDICT + "--columns id=doc plain.txt", "--columns: plain.txt is of the format lines (one sentence per line, a"),
    (TRAIN + "train=splits:training", "--dataset splits: has no training split, only train, validation"),
    (TRAIN + "train=good.jsonl,validation=good.jsonl", "train and validation would be the same documents"),
    (TRAIN + "splits:train", "--dataset splits:train: say for which split it is, as in test=splits:train"),
    (TRAIN + "good.jsonl --dataset_revision v1", "--dataset_revision v1: only a data set on the Hub has one"),
    (TRAIN + "test=good.jsonl", "--dataset test=good.jsonl: has no train split; give train=FILE"),
    (TRAIN + "train=good.jsonl", "has no validation split; give validation=FILE or --eval_strategy no"),
    (TRAIN + "train=good.jsonl,dev=good.jsonl", "(each at most once), found 'dev=good.jsonl'"),
    (EVALUATE + "--dataset splits", "--dataset splits: has no test split, only train, validation"),
    (EVALUATE + "--split tset", "--split tset: choose one of train, validation, test"),
    # where it is written
    (TRAIN + "good.jsonl --output_dir good.jsonl/run", "--output_dir good.jsonl/run: cannot be written ("),
    (TRAIN + "good.jsonl --output_dir taken", "--output_dir taken: holds a run already (arguments.yaml); choose"),
    (EVALUATE + "--output_dir taken", "taken: holds a training run"),
    (
        EVALUATE + "--dataset good.jsonl --output_dir good.jsonl/x",
        "--output_dir good.jsonl/x: cannot be written (Not a",
    ),
    # a model
    ("train --model_name_or_path nothing", "nothing: holds no model (there is no config.json in it)"),
    ("train --model_name_or_path no/such", "no/such: there is no such folder, and no model of that name"),
    ("train --model_name_or_path torn", "torn: holds no tokenizer files"),
    ("train --model_name_or_path spoilt", "spoilt: "),
    ("evaluation", "--model_path is missing"),
    ("evaluation --model_path nowhere/model", "nowhere/model: there is no such folder"),
    ("predict --model_path ENCODER", "holds a bert model, not one trained by sentorder"),
    ("predict --model_path parent", "parent: holds no model (there is no config.json in it); did you mean"),
    # flags
    ("train --bogus 1", "--bogus: there is no such argument"),
    ("train --method magic", "--method magic: choose one of regression, regression-share, l1"),
    ("train --method random", "--method random: choose one of regression, "),
    ("train --backbone sideways", "--backbone sideways: choose one of joint, restarted, hierarchical"),
    ("evaluation --untrained pairwise", "--untrained pairwise: choose one of as-shuffled, random, similarity"),
    (EVALUATE + "--decoder magic", "--decoder magic: choose one of pairs, "),
    (
        EVALUATE + "--dataset test=good.jsonl --decoder positions",
        "--decoder positions: reads position_logits, which the method pairwise does not give",
    ),
    (
        PREDICT + "--decoder choices good.jsonl",
        "--decoder choices: reads choices, which the method pairwise does not give",
    ),
    (
        PREDICT + "--decoder borda --num_best 2 good.jsonl",
        "--decoder borda: gives one order of a document, not 2",
    ),
    ("evaluation --untrained random --model_path MODEL", "is a trained model of sentorder, not an encoder"),
    (
        TRAIN + "good.jsonl --backbone hierarchical --pad_to_max_length",
        "--pad_to_max_length: the backbone hierarchical computes as many sentences as there are",
    ),
    (EVALUATE + "--num_permutations 0", "--num_permutations 0: must be at least 1"),
    (PREDICT + "--num_refeeds -1 good.jsonl", "--num_refeeds -1: must be at least 0"),
    ("train --config bad.yaml", "--config bad.yaml: there is no argument 'speed'"),
    ("train --config torn.yaml", "--config torn.yaml: not valid YAML"),
    ("train --config none.yaml", "--config none.yaml: there is no such file"),
    (TRAIN + "good.jsonl --mixed_precision fp16", "--mixed_precision fp16: not on a CPU; use bf16 or no"),
    ("train --per_device_train_batch_size 0", "--per_device_train_batch_size 0: must be at least 1"),
    ("train --learning_rate -1", "--learning_rate -1.0: must be at least 0"),
    ("train --num_train_epochs 0", "Nothing would be trained: give --max_steps or --num_train_epochs above 0"),
    ("train --per_device_eval_batch_size 99999999", "--per_device_eval_batch_size 99999999: must be at least 1 and at"),
    ("train --max_steps 99999999999999", "--max_steps 99999999999999: must be at least -1 and at most 1000000000"),
    (TRAIN + "good.jsonl --max_length 100000", "--max_length 100000: the encoder encoder0 takes at most 512 tokens"),
    (
        TRAIN + "good.jsonl --gradient_accumulation_steps 60000",
        "--gradient_accumulation_steps 60000: a step would have 60000 micro-batches, but there are only 8 documents",
    ),
    (PREDICT + "--batch_size -4 good.jsonl", "--batch_size -4: must be at least 1"),
    (PREDICT + "--num_best 0 good.jsonl", "--num_best 0: must be at least 1"),
]


@pytest.mark.parametrize(("command", "message"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_sentence(
    run: Run, tiny_encoder: str, model_path: str, files: Path, command: str, message: str
) -> None:
    name, *arguments = (word.replace("ENCODER", tiny_encoder).replace("MODEL", model_path) for word in command.split())
    before = sorted(files.rglob("*"))
    result = run("python", "-m", f"sentorder.{name}", *arguments)
    assert result.returncode == 2, result.stderr
    assert message in result.stderr and "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1 and result.stdout == ""
    assert sorted(files.rglob("*")) == before


def test_all_mistakes_are_told_at_once(run: Run) -> None:
    result = run("python", "-m", "sentorder.train", "--seed", "-1", "--max_length", "0", "--dropout", "x", "--speed=3")
    found = result.stderr.strip().splitlines()
    assert result.returncode == 2 and len(found) == 4
    for flag in ("--seed -1: ", "--max_length 0: ", "--dropout: ", "--speed=3: "):
        assert sum(line.startswith(f"sentorder: error: {flag}") for line in found) == 1


# --- odd, but right -------------------------------------------------------------------------------------------------


def test_training_takes_what_is_odd_and_counts_what_it_leaves_out(run: Run, tiny_encoder: str, files: Path) -> None:
    """Windows line ends, a byte-order mark, all scripts, 100,000 characters in one sentence, and copies."""
    result = run(
        *("python", "-m", "sentorder.train", "--model_name_or_path", tiny_encoder, "--output_dir", "run"),
        *("--dataset", "train=windows.jsonl,validation=skipped.jsonl,test=duplicates.jsonl", "--max_steps", "2"),
    )
    assert result.returncode == 0, result.stderr
    for note in (
        "windows.jsonl: skipped 2 of 22 documents with fewer than two sentences (the first: windows.jsonl, line 19).",
        "windows.jsonl: skipped 2 of 22 documents with an empty sentence (the first: windows.jsonl, line 21).",
        "skipped.jsonl: skipped 2 of 14 documents with fewer than two sentences (the first: skipped.jsonl, line 11).",
        "skipped.jsonl: skipped 2 of 14 documents with an empty sentence (the first: skipped.jsonl, line 13).",
        "train: 1 of 18 documents do not fit into the encoder's window",
    ):
        assert note in result.stderr
    scores = json.loads((files / "run" / "test_results.json").read_text())
    assert scores["kendall_tau"] == scores["accuracy"] == scores["perfect_match_ratio"] == 1.0  # copies are no errors


WORKS = [
    ("scripts.jsonl", SCRIPTS, ""),
    ("long.jsonl", GOOD + LONG, "1 of 12 documents do not fit into the encoder's window"),
    ("list.json", GOOD[:1], ""),
    ("note.txt", [["[1] A text that begins with a bracket.", "{2} Another line."]], ""),
]


@pytest.mark.parametrize(("file", "rows", "note"), WORKS, ids=[file for file, _, _ in WORKS])
def test_prediction_gives_every_sentence_back(
    run: Run, model_path: str, files: Path, file: str, rows: Rows, note: str
) -> None:
    result = run("python", "-m", "sentorder.predict", "--model_path", model_path, file)
    assert result.returncode == 0, result.stderr
    if file.endswith(".txt"):
        found = [result.stdout.splitlines()]
    else:
        answers = [json.loads(line) for line in result.stdout.split("\n")[:-1]]
        found = [answer["sentences"] for answer in answers]
        for row, answer in zip(rows, answers, strict=True):
            assert [row[i] for i in answer["order"]] == answer["sentences"]
    assert [sorted(row) for row in found] == [sorted(row) for row in rows]
    assert note in result.stderr and len(result.stderr.splitlines()) == (note != "")


# --- Ctrl-C ---------------------------------------------------------------------------------------------------------

INTERRUPTIONS = [
    ("train", 0.8, ""),
    ("train", 2.5, ""),
    ("train", 0.0, "step 3/"),
    ("evaluation", 2.0, ""),
    ("predict", 0.8, ""),
    ("predict", 2.5, ""),  # while it imports torch
    pytest.param("predict", 8.0, "", marks=pytest.mark.slow),  # which waits for its standard input
]


@pytest.mark.parametrize(("command", "seconds", "said"), INTERRUPTIONS)
def test_ctrl_c_at_any_time_is_one_line(
    tiny_encoder: str, model_path: str, files: Path, command: str, seconds: float, said: str
) -> None:
    arguments = {
        "train": ["--model_name_or_path", tiny_encoder, "--dataset", "good.jsonl", "--max_steps", "1000000"],
        "evaluation": ["--model_path", model_path],
        "predict": ["--model_path", model_path],
    }[command]
    with subprocess.Popen(
        [sys.executable, "-m", f"sentorder.{command}", *arguments, *(["--logging_steps", "1"] if said else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=files,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)},
        preexec_fn=hear_signals,
    ) as process:
        assert process.stderr is not None
        heard = ""
        if said:
            heard = next(line for line in process.stderr if said in line)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        try:
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, heard + stderr
    assert "Traceback" not in stderr and stdout == ""
    assert stderr.strip().splitlines()[-1].startswith("sentorder: interrupted")
