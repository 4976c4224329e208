"""Intervals and tests of differences: against SciPy, statsmodels, published values, and planted truths."""

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


def test_the_bootstrap_over_images_is_near_the_normal_interval_when_n_is_large() -> None:
    correct = np.random.default_rng(0).random((3, 2000)) < 0.7
    shares = correct.mean(axis=0)
    half = 1.96 * shares.std(ddof=1) / np.sqrt(2000)
    figures = statistics.interval_over_images(correct)
    assert figures["low"] == pytest.approx(shares.mean() - half, abs=1.5e-3)
    assert figures["high"] == pytest.approx(shares.mean() + half, abs=1.5e-3)


def test_all_right_has_an_interval_of_no_width_by_bootstrap_but_not_by_wilson() -> None:
    assert statistics.interval_over_images(np.ones((2, 50))) == {"low": 1.0, "high": 1.0}
    assert statistics.interval_over_images(np.ones((1, 50)))["low"] < 0.95


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 40))
def test_one_seed_is_mcnemars_exact_test(only_first: int, only_second: int, both: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    first = np.repeat([True, False, True], [only_first, only_second, both])[None]
    second = np.repeat([False, True, True], [only_first, only_second, both])[None]
    expected = mcnemar([[both, only_first], [only_second, 0]], exact=True).pvalue if only_first + only_second else 1.0
    assert statistics.compare_images(first, second) == pytest.approx(expected)


def test_several_equal_seeds_say_what_one_says() -> None:
    """The permutation test of copies of one model is McNemar's, up to its random draws."""
    rng = np.random.default_rng(1)
    first, second = rng.random((1, 400)) < 0.8, rng.random((1, 400)) < 0.75
    exact = statistics.compare_images(first, second)
    repeated = statistics.compare_images(np.repeat(first, 3, axis=0), np.repeat(second, 3, axis=0))
    assert repeated == pytest.approx(exact, abs=0.02)


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


def test_dunnett_finds_a_planted_difference_that_three_seeds_of_one_pair_cannot() -> None:
    rng = np.random.default_rng(0)
    groups = [0.60 + 0.01 * rng.normal(size=3) for _ in range(20)]
    control = 0.60 + 0.01 * rng.normal(size=3)
    groups[4] += 0.06
    tests = statistics.compare_with_control(groups, control)
    assert [place for place, test in enumerate(tests) if test["p"] < 0.05] == [4]
    for test in tests:  # interval and p say the same
        assert (test["low"] <= 0 <= test["high"]) == (test["p"] >= 0.05)
        assert test["low"] < test["difference"] < test["high"]


def test_dunnett_agrees_with_a_published_example() -> None:
    """Blood counts of three groups of animals (Dunnett 1955): no drug differs from the control at 5 %.

    With two groups the test is the pooled two-sample t-test.
    """
    from scipy.stats import ttest_ind

    control, a = [7.40, 8.50, 7.20, 8.24, 9.84, 8.32], [9.76, 8.80, 7.68, 9.36]
    b = [12.80, 9.68, 12.16, 9.20, 10.55]
    found_a, found_b = statistics.compare_with_control([np.array(a), np.array(b)], np.array(control))
    assert found_a["p"] == pytest.approx(0.6202, abs=2e-3)  # R, DescTools::DunnettTest
    assert found_b["p"] == pytest.approx(0.0058, abs=1e-3)
    (alone,) = statistics.compare_with_control([np.array(a)], np.array(control))
    expected = ttest_ind(a, control)
    assert alone["difference"] == pytest.approx(np.mean(a) - np.mean(control))
    assert alone["p"] == pytest.approx(expected.pvalue, abs=1e-3)
    assert (alone["low"], alone["high"]) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=2e-2)


def test_dunnett_without_spread_says_nothing() -> None:
    for group, control in (np.full(3, 0.7), np.full(3, 0.6)), (np.array([0.7]), np.array([0.6])):
        (test,) = statistics.compare_with_control([group], control)
        assert test == {"difference": pytest.approx(0.1), "low": None, "high": None, "p": None}


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
