"""How much lengths and coverage should count: every cell on the part for development, the best one on the test part."""

import json
from typing import Any

from data import Pairs
from decode import Search
from evaluate import counts, scores
from scores import Scoring

ALPHAS, BETAS = (0.0, 0.2, 0.6, 1.0), (0.0, 0.1, 0.2, 0.4)
MOST_SENTENCES = 250
"""Of each part: sixteen cells of them took 21 s."""


def sweep(trained: Any, translator: Any, beam: int, length: str) -> dict[str, Any]:
    """Print the table and what came of it, log both to the run in MLflow, and return them."""
    declared = trained.recipe.datasets[0].args
    language = trained.recipe.metrics["translation"].args["language"]
    name = "bleu" if trained.recipe.checkpoint.keep_best.metric.endswith("bleu") else "chrf"

    def quality(part: str, search: Search) -> dict[str, float]:
        pairs = Pairs(declared["corpus"], part, reverse=declared.get("reverse", False))
        sources, references = pairs.sources[:MOST_SENTENCES], pairs.targets[:MOST_SENTENCES]
        translations = translator.sentences(translator(sources, search))
        return scores(counts(translations, references, language), len(translations))

    table: list[list[float]] = []
    print(f"{name} of the part for development, beam {beam}, length {length}\n{'alpha':>8}", end="")
    print(*(f"  beta {beta:<4}" for beta in BETAS), sep="")
    for alpha in ALPHAS:
        table.append([])
        print(f"{alpha:8}", end="", flush=True)
        for beta in BETAS:
            table[-1].append(quality("dev", Search(beam, Scoring(length, alpha, beta)))[name])
            print(f"{table[-1][-1]:10.2f} ", end="", flush=True)
        print()
    best, row, column = max((value, -i, -j) for i, values in enumerate(table) for j, value in enumerate(values))
    alpha, beta = ALPHAS[-row], BETAS[-column]
    found = {
        "metric": name, "beam": beam, "length": length, "alpha": alpha, "beta": beta, "dev": best, "table": table,
        "test": {
            "greedy": quality("test", Search(1)),
            f"beam {beam}": quality("test", Search(beam)),
            f"beam {beam}, alpha {alpha}, beta {beta}": quality("test", Search(beam, Scoring(length, alpha, beta))),
        },
    }  # fmt: skip
    print(f"best: alpha {alpha}, beta {beta}; on the test part:")
    for what, values in found["test"].items():
        print(f"  {what:<28}" + "  ".join(f"{key} {value:.2f}" for key, value in values.items()))
    log(trained, found)
    return found


def log(trained: Any, found: dict[str, Any]) -> None:
    """The numbers and a heat map, as artifacts of the run in MLflow."""
    import matplotlib.pyplot as plt
    from mlflow import MlflowClient

    known = json.loads(trained.run.mlflow.read_text())
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    image = axes.imshow(found["table"], cmap="viridis")
    axes.set_xticks(range(len(BETAS)), BETAS)
    axes.set_yticks(range(len(ALPHAS)), ALPHAS)
    axes.set(xlabel="beta (coverage)", ylabel=f"alpha (length, {found['length']})", title=f"{found['metric']}, dev")
    for i, values in enumerate(found["table"]):
        for j, value in enumerate(values):
            axes.text(j, i, f"{value:.1f}", ha="center", va="center", color="white")
    figure.colorbar(image)
    client = MlflowClient(tracking_uri=known["uri"])
    client.log_figure(known["run_id"], figure, "decoding/alpha_beta.png")
    client.log_dict(known["run_id"], found, "decoding/sweep.json")
    plt.close(figure)
    print("MLflow has the table as decoding/alpha_beta.png and decoding/sweep.json")
