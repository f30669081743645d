"""The recipes beside the published one: they are added to a configuration, and run in its DAG."""

import pytest
import yaml
from workflow_run import PROJECT, Run, write_config

from clotline.feature_sets import models_of
from clotline.workflow.config import load_config

RECIPES = sorted((PROJECT / "config/recipes").glob("*.yaml"))
PUBLISHED = [
    f"{features}-{level}"
    for features in ("resnext50", "efficientnet_b0", "combined")
    for level in ("image", "study")
]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_only_what_is_its_own_and_differs_from_the_defaults(path):
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    config, defaults = load_config(recipe), load_config({})
    for stage in ("cnn", "lstm"):
        for name, section in defaults[stage].items():
            assert config[stage][name] == section
        default = next(iter(defaults[stage].values()))
        for name, given in recipe[stage].items():
            assert name not in defaults[stage]
            named = {"library", "architecture"}
            same = [key for key in given.keys() - named if given[key] == default[key]]
            assert same == []


@pytest.mark.parametrize(
    "path",
    [*RECIPES, PROJECT / "demo/config/winner.yaml"],
    ids=lambda path: str(path.relative_to(PROJECT)),
)
def test_a_recipe_runs_beside_the_published_one_on_the_demo(path, tmp_path):
    run = Run(PROJECT, tmp_path)
    write_config(run, (PROJECT / "demo/config/config.yaml").read_text(encoding="utf-8"))
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    done = run.snakemake("all", "--dry-run", "--printshellcmds", "--configfile", str(path))
    for name in (*PUBLISHED, *recipe["lstm"]):
        assert f"results/lstm/{name}.pt" in done.stdout
        for model in models_of(name):
            assert f"results/metrics/{model}.json" in done.stdout
    for name in ("resnext50", "efficientnet_b0", *recipe["cnn"]):
        assert f"results/cnn/{name}.pt" in done.stdout
