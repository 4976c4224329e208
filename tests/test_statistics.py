"""Intervals and tests of differences: against SciPy, statsmodels, published values, and planted truths."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prl_keras.evaluation import statistics


def test_mean_over_seeds_is_the_t_interval_of_the_textbook() -> None:
    from scipy.stats import t

    values = np.array([0.62, 0.65, 0.61, 0.66])
    figures = statistics.mean_over_seeds(values)
    half = t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert figures["mean"] == pytest.approx(0.635)
    assert figures["sd"] == pytest.approx(values.std(ddof=1))
    assert (figures["low"], figures["high"]) == (pytest.approx(0.635 - half), pytest.approx(0.635 + half))


def test_one_seed_has_no_interval_over_seeds() -> None:
    assert statistics.mean_over_seeds([0.5]) == {"mean": 0.5, "sd": None, "low": None, "high": None, "n": 1}


def test_the_interval_over_images_of_one_seed_is_wilsons() -> None:
    """81 of 263: 0.2553 to 0.3662 (Newcombe 1998, table I)."""
    figures = statistics.interval_over_images(np.arange(263)[None] < 81)
    assert figures == {"low": pytest.approx(0.2553, abs=5e-5), "high": pytest.approx(0.3662, abs=5e-5)}


def test_the_interval_over_images_of_several_seeds_is_near_the_normal_one_when_n_is_large() -> None:
    correct = np.random.default_rng(0).random((3, 2000)) < 0.7
    shares = correct.mean(axis=0)
    half = 1.96 * shares.std(ddof=1) / np.sqrt(2000)
    figures = statistics.interval_over_images(correct)
    assert figures["low"] == pytest.approx(shares.mean() - half, abs=1.5e-3)
    assert figures["high"] == pytest.approx(shares.mean() + half, abs=1.5e-3)


@pytest.mark.parametrize(("seeds", "n"), [(1, 359), (3, 359), (3, 100), (5, 200)])
@pytest.mark.parametrize("spread", [0.3, 2.0, 1e6])
def test_nineteen_of_twenty_intervals_over_images_hold_the_truth_also_near_100_percent(
    seeds: int, n: int, spread: float
) -> None:
    """99 % right; images that are all alike (1e6), or some are hard for every seed (0.3). A bootstrap: 89 to 91 %."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(1000):
        difficulty = rng.beta(0.99 * spread, 0.01 * spread, n)
        figures = statistics.interval_over_images(rng.random((seeds, n)) < difficulty)
        held += figures["low"] <= 0.99 <= figures["high"]
    assert held >= 935  # 95 %, and what 1,000 draws may miss of it


def test_copies_of_a_seed_say_what_one_says_and_other_answers_say_more() -> None:
    right = np.random.default_rng(0).random(300) < 0.9
    one, copies = (statistics.interval_over_images(np.repeat(right[None], k, axis=0)) for k in (1, 4))
    assert copies == {key: pytest.approx(value) for key, value in one.items()}
    each_right_once = np.array([np.arange(300) % 2 == 0, np.arange(300) % 2 == 1])
    twice = statistics.interval_over_images(np.arange(600)[None] < 300)  # at most one image for each answer
    assert statistics.interval_over_images(each_right_once) == {k: pytest.approx(v) for k, v in twice.items()}


def test_all_right_or_all_wrong_is_no_certainty() -> None:
    for right in (np.ones, np.zeros):
        expected = statistics.interval_over_images(right((1, 50)))
        assert statistics.interval_over_images(right((2, 50))) == expected
        assert expected["high"] - expected["low"] > 0.05


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_one_seed_is_mcnemars_exact_test(only_first: int, only_second: int, both: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    first = np.repeat([True, False, True], [only_first, only_second, both])[None]
    second = np.repeat([False, True, True], [only_first, only_second, both])[None]
    expected = mcnemar([[both, only_first], [only_second, 0]], exact=True).pvalue if only_first + only_second else 1.0
    assert statistics.compare_images(first, second) == pytest.approx(expected)


@given(st.integers(2, 5), st.integers(1, 9), st.integers(0, 1_000))
def test_several_seeds_are_all_flips_of_the_images_differences(seeds: int, images: int, seed: int) -> None:
    first, second = np.random.default_rng(seed).random((2, seeds, images)) < 0.6
    differences = first.sum(axis=0) - second.sum(axis=0)
    flips = np.array(list(product((1, -1), repeat=images))) @ differences
    expected = np.mean(np.abs(flips) >= abs(differences.sum()))
    assert statistics.compare_images(first, second) == pytest.approx(expected, abs=1e-12)


def test_several_equal_seeds_say_what_one_says() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random((1, 4000)) < 0.8, rng.random((1, 4000)) < 0.78
    exact = statistics.compare_images(first, second)
    repeated = statistics.compare_images(np.repeat(first, 3, axis=0), np.repeat(second, 3, axis=0))
    assert 1e-3 < exact < 0.5
    assert repeated == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("shapes", [((3, 10), (3, 11)), ((2, 10), (3, 10)), ((10,), (10,))])
def test_unpaired_answers_are_refused(shapes: tuple) -> None:
    with pytest.raises(ValueError, match="expected"):
        statistics.compare_images(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_compare_seeds_is_the_paired_t_test_of_statsmodels() -> None:
    from statsmodels.stats.weightstats import DescrStatsW

    first, second = np.array([0.84, 0.86, 0.85, 0.88]), np.array([0.83, 0.84, 0.85, 0.85])
    expected = DescrStatsW(first - second)
    found = statistics.compare_seeds(first, second)
    assert found["p"] == pytest.approx(expected.ttest_mean(0)[1])
    assert (found["low"], found["high"]) == pytest.approx(expected.tconfint_mean())


def test_seeds_without_spread_give_no_p_value() -> None:
    """Two seeds on few images are often equally far apart: that is no certainty."""
    assert statistics.compare_seeds([0.50, 0.60], [0.49, 0.59])["p"] is None
    assert statistics.compare_seeds([0.5], [0.4]) == {
        "difference": pytest.approx(0.1),
        "low": None,
        "high": None,
        "p": None,
    }


def accuracies(rows: int, seeds: int, sd: float = 0.01, seed: int = 0) -> np.ndarray:
    """(rows, seeds) around 60 %, with an effect of the seed that all rows share."""
    rng = np.random.default_rng(seed)
    return 0.60 + sd * rng.normal(size=(rows, seeds)) + 0.05 * rng.normal(size=seeds)


def test_many_rows_find_a_planted_difference_that_three_seeds_of_one_pair_cannot() -> None:
    control, *groups = accuracies(21, 3, seed=2)
    groups[4] += 0.06
    tests = statistics.compare_with_control(groups, control)
    corrected = statistics.corrected([test["p"] for test in tests])
    assert [place for place, p in enumerate(corrected) if p < 0.05] == [4]
    assert statistics.compare_seeds(groups[4], control)["p"] > 0.05 / 20
    for test in tests:  # interval and p say the same
        assert (test["low"] <= 0 <= test["high"]) == (test["p"] >= 0.05)
        assert test["low"] < test["difference"] < test["high"]


@pytest.mark.parametrize(("rows", "seeds"), [(2, 2), (2, 4), (3, 3), (9, 2), (22, 5)])
def test_the_pooled_test_is_statsmodels_analysis_of_variance(rows: int, seeds: int) -> None:
    import statsmodels.api as sm

    values = accuracies(rows, seeds, seed=rows)
    row, seed = (place.ravel() for place in np.indices(values.shape))
    design = np.column_stack([row[:, None] == np.arange(1, rows), seed[:, None] == np.arange(seeds)]).astype(float)
    expected = sm.OLS(values.ravel(), design).fit()
    for place, test in enumerate(statistics.compare_with_control(list(values[1:]), values[0])):
        assert test["difference"] == pytest.approx(expected.params[place])
        assert test["p"] == pytest.approx(expected.pvalues[place], rel=1e-6)
        assert (test["low"], test["high"]) == pytest.approx(tuple(expected.conf_int()[place]))


def test_of_one_pair_the_pooled_test_is_the_paired_t_test() -> None:
    first, second = accuracies(2, 3)
    (found,) = statistics.compare_with_control([first], second)
    assert found == pytest.approx(statistics.compare_seeds(first, second))


def test_with_enough_seeds_each_pair_is_judged_by_its_own_spread() -> None:
    values = accuracies(4, 8)
    values[3] += np.linspace(-1, 1, 8)
    found = statistics.compare_with_control(list(values[1:]), values[0])
    assert found == [statistics.compare_seeds(group, values[0]) for group in values[1:]]


def test_without_spread_over_seeds_nothing_is_said() -> None:
    for group, control in (np.full(3, 0.7), np.full(3, 0.6)), (np.array([0.7]), np.array([0.6])):
        (test,) = statistics.compare_with_control([group], control)
        assert test == {"difference": pytest.approx(0.1), "low": None, "high": None, "p": None}
    figures = statistics.mean_over_seeds([0.7, 0.7, 0.7])
    assert figures == {"mean": pytest.approx(0.7), "sd": 0.0, "low": None, "high": None, "n": 3}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_correction_is_that_of_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    np.testing.assert_allclose(statistics.corrected(p_values), multipletests(p_values, method="fdr_bh")[1])


def test_nothing_to_correct() -> None:
    assert statistics.corrected([]) == []


def test_calibration_of_a_case_done_by_hand() -> None:
    """Two bins: confidence 0.8 twice, one right; confidence 0.9 (other bin of ten) once, right."""
    probabilities = np.array([[0.75, 0.25], [0.75, 0.25], [0.95, 0.05]])
    figures = statistics.calibration(np.log(probabilities), np.array([0, 1, 0]), bins=10)
    assert figures["ece"] == pytest.approx((2 * abs(0.5 - 0.75) + abs(1 - 0.95)) / 3)
    assert figures["counts"] == [0, 0, 0, 0, 0, 0, 0, 2, 0, 1]
    assert figures["accuracy"][7] == 0.5
    assert figures["confidence"][9] == pytest.approx(0.95)
    assert figures["accuracy"][0] is None


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 6))
def test_calibration_equals_a_slow_loop(seed: int, n: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = 3 * rng.normal(size=(n, classes)), rng.integers(0, classes, n)
    total = 0.0
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for at in range(15):
        members = [i for i in range(n) if at / 15 < p[i].max() <= (at + 1) / 15]
        if members:
            accuracy = np.mean([p[i].argmax() == labels[i] for i in members])
            total += len(members) / n * abs(accuracy - np.mean([p[i].max() for i in members]))
    assert statistics.calibration(logits, labels)["ece"] == pytest.approx(total, abs=1e-9)
