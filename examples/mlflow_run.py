"""Train inside ``mlflow.start_run``, and log more into the same run afterwards.

    pip install "sentorder[trackers]"
    python examples/mlflow_run.py

``--log_with mlflow`` of ``python -m sentorder.train`` makes a run of its own; inside of one, it logs into that.
"""

import argparse

import mlflow

from sentorder import SentenceOrderer, TrainArguments
from sentorder.data.sources import load_split
from sentorder.evaluation import scores_of
from sentorder.train import train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="stories")
    parser.add_argument("--model_name_or_path", help="an encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--output_dir", default="runs/mlflow")
    args = parser.parse_args()

    with mlflow.start_run(run_name="by hand") as run:
        mlflow.set_tag("purpose", "an example")
        result = train(
            TrainArguments(
                dataset=args.dataset,
                model_name_or_path=args.model_name_or_path,
                max_steps=args.max_steps,
                output_dir=args.output_dir,
                log_with=["mlflow"],  # arguments, losses and scores
            )
        )

        # Whatever else is to be known of this run: here, how it does with long and with short documents.
        orderer = SentenceOrderer.from_pretrained(result.model_dir)
        documents, _ = load_split(args.dataset, "test")
        orders = [found.order for found in orderer.order(documents["sentences"][:])]
        for name, some in (
            ("short", [order for order in orders if len(order) <= 5]),
            ("long", [order for order in orders if len(order) > 5]),
        ):
            if some:
                mlflow.log_metric(f"test_kendall_tau_{name}", scores_of(some)["kendall_tau"])
        mlflow.log_param("kept_step", result.best_step)
        mlflow.log_artifact(str(result.output_dir / "predictions.jsonl"))
    print(f"run {run.info.run_id}: test tau {result.test['kendall_tau']:.4f}" if result.test else run.info.run_id)


if __name__ == "__main__":
    main()
