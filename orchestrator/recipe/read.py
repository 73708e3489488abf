"""A recipe file and its overrides, read into one frozen value that remembers where every key was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.documents import Document, dump_yaml, parse_document, read_document
from orchestrator.errors import Problem, RecipeError
from orchestrator.recipe.check import RULES
from orchestrator.recipe.interpolation import from_environment, interpolated
from orchestrator.recipe.overrides import with_overrides
from orchestrator.recipe.schema import Environment, Recipe
from orchestrator.survey import Check, surveyed


@dataclass(frozen=True)
class ReadRecipe:
    """A recipe, where it came from, and what it adds to the job's environment."""

    recipe: Recipe
    """Complete, but for `${plan.X}` in `command` and `${oc.env:X}` under `env`: it holds no secret."""
    document: Document
    """The recipe's data with the place of every key, overrides included."""
    folder: Path
    """Where the recipe's own modules stand."""
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    """Variables for the job, those of mirrors included. Holds secrets: never print, log or track it."""

    @property
    def stored(self) -> str:
        """The YAML text for `run_dir/recipe.yaml`, without secrets; `recipe_from_stored` reads it back."""
        return dump_yaml(self.recipe.model_dump(mode="json"))

    def refuse(self, problems: Iterable[Problem]) -> None:
        """Raise RecipeError when there are problems; their `where` is a dotted key, and gets its place."""
        placed = self.document.placed(problems)
        if placed:
            raise RecipeError(placed)


def read_recipe(path: Path | str, overrides: Sequence[str] = (), *, checks: Sequence[Check[Recipe]] = ()) -> ReadRecipe:
    """The recipe in the YAML file `path`, with `overrides` (`a.b=c`), interpolated, validated and checked.

    Reads the environment for `${oc.env:X}`. Raises RecipeError with all problems at once: of the text, the overrides,
    the interpolations, the types, the fields against each other, and of further `checks`.
    """
    document = interpolated(with_overrides(read_document(path, RecipeError), overrides))
    secret = from_environment(document)
    document = replace(secret, data=document.data)
    recipe = surveyed(Recipe, document, (*RULES, *checks), RecipeError)
    environment = _variables(Environment.model_validate(secret.data.get("env", {})))
    return ReadRecipe(recipe, document, Path(path).parent, environment)


def recipe_from_stored(text: str, source: str) -> Recipe:
    """The recipe that `ReadRecipe.stored` wrote; `source` names it in messages. Nothing is interpolated again.

    Raises RecipeError.
    """
    return surveyed(Recipe, parse_document(text, source, RecipeError), (), RecipeError)


def variables_of(recipe: Recipe) -> dict[str, str]:
    """What `ReadRecipe.environment` is, of a recipe that is being checked still. Holds secrets, as that does."""
    mirrors = {"huggingface": recipe.env.mirrors.huggingface, "git": recipe.env.mirrors.git}
    told = {"env": {"variables": recipe.env.variables, "mirrors": mirrors}}
    return _variables(Environment.model_validate(from_environment(Document("", told, {})).data["env"]))


def _variables(env: Environment) -> dict[str, str]:
    """The job's variables: the recipe's own, and those by which Hugging Face and git find their mirrors."""
    variables = dict(env.variables)
    if env.mirrors.huggingface is not None:
        variables["HF_ENDPOINT"] = env.mirrors.huggingface
    if env.mirrors.git:
        variables["GIT_CONFIG_COUNT"] = str(len(env.mirrors.git))
        for index, (prefix, mirror) in enumerate(env.mirrors.git.items()):
            variables[f"GIT_CONFIG_KEY_{index}"] = f"url.{mirror}.insteadOf"
            variables[f"GIT_CONFIG_VALUE_{index}"] = prefix
    return variables
