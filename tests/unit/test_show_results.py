import pandas as pd

from clotline.evaluation.comparison import metrics_table
from tools.show_results import results_text


def test_each_model_stands_beside_its_baseline_or_is_said_not_to_beat_it(tmp_path):
    empty = metrics_table({}, pd.DataFrame(columns=["model", "from", "warning"]))
    rows = [
        {"model": "a-image", "level": "image", "target": "pe_present_on_image"},
        {"model": "a-study", "level": "study", "target": "pe_present"},
        {"model": "b-study", "level": "study", "target": "pe_present", "note": "no studies"},
    ]
    for row, low, baseline in zip(rows, (0.1, -0.02), ("position only", "counts"), strict=False):
        row |= {"n_studies": 34, "n_positive": 14, "auroc": 0.9, "auroc_low": 0.8}
        row |= {"auroc_high": 0.95, "baseline": baseline, "baseline_auroc": 0.75}
        row |= {"above_baseline": 0.15, "above_baseline_low": low, "above_baseline_high": 0.2}
    rows[2] |= {"n_studies": 0, "n_positive": 0}
    (tmp_path / "results").mkdir()
    table = pd.DataFrame(rows, columns=empty.columns)
    table.to_csv(tmp_path / "results/metrics.csv", index=False)
    pd.DataFrame(columns=["model", "warning"]).to_csv(tmp_path / "results/warnings.csv")
    head, slices, studies, none, *_ = results_text(tmp_path).splitlines()
    assert "baseline" in head
    assert slices.endswith("beats position only 0.750") and "0.900 (0.800–0.950)" in slices
    assert studies.endswith("not shown to beat counts 0.750")
    assert none.endswith("studies positive") and "not computable: no studies" in none
