"""The own Gaussian process is the one of the textbook: held against scikit-learn's and against differences."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from xaytune.search.curves.gp import (
    ALL_TRIALS,
    NEW_TRIAL,
    GaussianProcess,
    Hyperparameters,
    fit,
    negative_log_posterior,
)
from xaytune.search.curves.lbfgs import minimise

RNG = np.random.default_rng(0)
X = RNG.random((40, 3))
TRIALS = np.arange(40) // 2
Y = np.sin(4 * X[:, 0]) + X[:, 1] ** 2 + 0.1 * RNG.standard_normal(40)
PARAMETERS = Hyperparameters(np.array([3.0, 1.0, 0.2, 0.5]), 0.8, 0.03)


def reference(y: np.ndarray = Y) -> tuple[GaussianProcessRegressor, np.ndarray]:
    """Scikit-learn's process of the same covariance; being of another trial is a one-hot feature."""
    same = np.eye(TRIALS.max() + 1)[TRIALS] / np.sqrt(2)
    lengthscales = 1 / np.sqrt(PARAMETERS.inverse_squared_lengthscales)
    scales = np.concatenate([lengthscales[:-1], np.full(same.shape[1], lengthscales[-1])])
    kernel = ConstantKernel(PARAMETERS.scale) * Matern(scales, nu=2.5) + WhiteKernel(PARAMETERS.noise)
    points = np.concatenate([X, same], axis=1)
    return GaussianProcessRegressor(kernel, optimizer=None).fit(points, y), points


def raw(parameters: Hyperparameters) -> np.ndarray:
    noise = parameters.noise - 1e-6
    return np.log([*parameters.inverse_squared_lengthscales, parameters.scale, noise])


def log_prior(parameters: Hyperparameters) -> float:
    q, scale, noise = parameters.inverse_squared_lengthscales, parameters.scale, parameters.noise
    return float(-(0.1 / q + 0.1 * q).sum() + np.log(scale) - scale + 0.1 * np.log(noise) - 30 * noise)


def test_its_likelihood_is_that_of_scikit_learn() -> None:
    regressor, _ = reference()
    value, _ = negative_log_posterior(raw(PARAMETERS), X, TRIALS, Y)
    likelihood = -value - log_prior(PARAMETERS) - len(Y) / 2 * np.log(2 * np.pi)
    assert likelihood == pytest.approx(regressor.log_marginal_likelihood_value_, abs=1e-8)


def test_its_posterior_is_that_of_scikit_learn_at_seen_trials_and_at_new_ones() -> None:
    regressor, _ = reference()
    process = GaussianProcess(PARAMETERS, X, TRIALS, Y)
    new = RNG.random((6, 3))
    trials = np.array([0, 0, 3, 7, NEW_TRIAL, NEW_TRIAL])
    one_hot = np.zeros((6, TRIALS.max() + 1))
    for row, trial in enumerate(trials):
        one_hot[row, max(trial, 0)] = np.sqrt(0.5)
    mean, deviation = process.posterior(new[:4], trials[:4])
    expected, with_noise = regressor.predict(np.concatenate([new, one_hot], axis=1)[:4], return_std=True)
    np.testing.assert_allclose(mean, expected, atol=1e-8)
    np.testing.assert_allclose(deviation**2, with_noise**2 - PARAMETERS.noise, atol=1e-8)
    # A new trial differs from every trial there is.
    covariance = PARAMETERS.covariance(X, TRIALS, new[4:], trials[4:])
    squared = ((X[:, None] - new[None, 4:]) ** 2) @ PARAMETERS.inverse_squared_lengthscales[:-1] + 0.5
    root = np.sqrt(5 * squared)
    np.testing.assert_allclose(covariance, 0.8 * np.exp(-root) * (1 + root + root**2 / 3), atol=1e-12)


def test_what_a_configuration_is_worth_is_the_mean_of_all_its_trials() -> None:
    process = GaussianProcess(PARAMETERS, X, TRIALS, Y)
    at, trials = np.full((1000, 3), 0.4), np.arange(100, 1100)
    known = PARAMETERS.covariance(X, TRIALS, X, TRIALS) + PARAMETERS.noise * np.eye(len(X))
    seen = PARAMETERS.covariance(X, TRIALS, at, trials)
    joint = PARAMETERS.covariance(at, trials, at, trials) - seen.T @ np.linalg.solve(known, seen)
    (mean, deviation), one = (process.posterior(at[:1], np.array([of])) for of in (ALL_TRIALS, NEW_TRIAL))
    assert mean == one[0]
    assert deviation[0] ** 2 == pytest.approx(joint.mean(), rel=0.01)
    assert deviation < 0.7 * one[1]


@pytest.mark.parametrize("seed", range(5))
def test_its_gradient_is_that_of_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    point = raw(PARAMETERS) + rng.standard_normal(6)
    _, gradient = negative_log_posterior(point, X, TRIALS, Y)
    steps = 1e-5 * np.eye(6)
    differences = [
        (
            negative_log_posterior(point + step, X, TRIALS, Y)[0]
            - negative_log_posterior(point - step, X, TRIALS, Y)[0]
        )
        / 2e-5
        for step in steps
    ]
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-5)


def test_its_fit_is_the_optimum_that_scipy_finds() -> None:
    found = raw(fit(X, TRIALS, Y))
    start = np.array([0, 0, 0, 0, 0, np.log(1e-2)])
    best = minimize(lambda point: negative_log_posterior(point, X, TRIALS, Y), start, jac=True, method="L-BFGS-B")
    assert negative_log_posterior(found, X, TRIALS, Y)[0] == pytest.approx(best.fun, abs=0.05)


def test_the_mean_at_what_was_seen_is_its_posterior_there() -> None:
    process = GaussianProcess(PARAMETERS, X, TRIALS, Y)
    np.testing.assert_allclose(process.seen_mean, process.posterior(X, TRIALS)[0], atol=1e-8)


def test_a_running_trial_lowers_the_deviation_where_it_will_be_seen_and_moves_no_mean() -> None:
    process = GaussianProcess(PARAMETERS, X, TRIALS, Y)
    at, of, elsewhere = np.full((1, 3), 2.0), np.array([99]), RNG.random((5, 3))
    running = GaussianProcess(PARAMETERS, np.concatenate([X, at]), np.concatenate([TRIALS, of]), Y)
    before, after = process.posterior(at, of), running.posterior(at, of)
    assert after[1] < before[1] / 2
    others = np.full(5, NEW_TRIAL)
    np.testing.assert_allclose(
        running.posterior(elsewhere, others)[0], process.posterior(elsewhere, others)[0], atol=1e-8
    )


def test_values_of_equal_points_can_be_modelled() -> None:
    parameters = fit(np.zeros((10, 2)), np.zeros(10, np.int64), np.zeros(10))
    mean, deviation = GaussianProcess(
        parameters, np.zeros((10, 2)), np.zeros(10, np.int64), np.zeros(10)
    ).posterior(np.ones((1, 2)), np.array([NEW_TRIAL]))
    assert mean == pytest.approx(0)
    assert np.isfinite(deviation).all()


def test_lbfgs_finds_the_bottom_of_a_curved_valley() -> None:
    def rosenbrock(point: np.ndarray) -> tuple[float, np.ndarray]:
        x, y = point
        gradient = np.array([-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)])
        return (1 - x) ** 2 + 100 * (y - x * x) ** 2, gradient

    found = minimise(rosenbrock, np.array([-1.2, 1.0]), tolerance=1e-6, max_steps=200)
    np.testing.assert_allclose(found, [1, 1], atol=1e-5)


def test_lbfgs_turns_back_where_the_function_is_not_finite() -> None:
    def barrier(point: np.ndarray) -> tuple[float, np.ndarray]:
        if point[0] <= 0:
            return np.inf, np.zeros(1)
        return float(point[0] - 1e-3 * np.log(point[0])), 1 - 1e-3 / point

    assert minimise(barrier, np.array([1.0]), tolerance=1e-8)[0] == pytest.approx(1e-3, rel=1e-4)
