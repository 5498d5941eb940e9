"""Search hyperparameters with Optuna: ``train()`` is a function, and may be called as often as one likes.

    pip install "sentorder[examples]"
    python examples/hyperparameter_search.py --trials 20 --max_steps 170

Trials are chosen on validation, and no trial sees the test split. What was found is kept in a file, so that the same
command goes on where it was stopped.
"""

import argparse
from pathlib import Path

import optuna

from sentorder import TrainArguments
from sentorder.train import train


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataset", default="train=stories,validation=stories")
    parser.add_argument("--model_name_or_path", help="an encoder (default: all-MiniLM-L6-v2)")
    parser.add_argument("--trials", type=int, default=20, help="in all, with those of earlier calls")
    parser.add_argument("--max_steps", type=int, default=170)
    parser.add_argument("--output_dir", default="runs/search")
    args = parser.parse_args()
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)

    def validation_tau(trial: optuna.Trial) -> float:
        result = train(
            TrainArguments(
                dataset=args.dataset,
                model_name_or_path=args.model_name_or_path,
                max_steps=args.max_steps,
                learning_rate=trial.suggest_float("learning_rate", 2e-5, 3e-4, log=True),
                head_learning_rate=trial.suggest_float("head_learning_rate", 2e-4, 5e-3, log=True),
                weight_decay=trial.suggest_float("weight_decay", 0.0, 0.1),
                method=trial.suggest_categorical("method", ["pairwise", "pairwise-neighbours", "joint"]),
                save_strategy="no",
                output_dir=str(folder / f"trial-{trial.number}"),
                overwrite_output_dir=True,  # of a trial that was interrupted
            )
        )
        assert result.validation is not None
        return result.validation["kendall_tau"]

    study = optuna.create_study(
        study_name="sentorder",
        storage=f"sqlite:///{folder / 'study.db'}",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=42),
    )
    finished = sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in study.trials)
    study.optimize(validation_tau, n_trials=max(0, args.trials - finished))
    print(f"best of {len(study.trials)} trials: validation tau {study.best_value:.4f} with {study.best_params}")


if __name__ == "__main__":
    main()
