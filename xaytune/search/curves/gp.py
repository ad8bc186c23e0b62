"""A Gaussian process over configurations, time and trials.

The covariance of two values is ``scale * m(r)`` with the Matern-5/2 function m and
``r**2 = sum_d q_d * (x_d - x'_d)**2 + q_trial * [they are of different trials]``: one inverse squared lengthscale
q for each feature, one for being another trial. The priors are those of Optuna's sampler (5.0, ``optuna._gp``):
``.1 / q + .1 * q`` is the negative log density of each q, the scale is Gamma(2, 1), the noise Gamma(1.1, 30).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xaytune.search.curves.lbfgs import minimise

Matrix = NDArray[np.float64]
Numbers = NDArray[np.int64]

# The number of a trial that there is not yet: it differs from every other.
NEW_TRIAL = -1
# The mean of all trials that a configuration could have: what it is worth, without the luck of one of them.
ALL_TRIALS = -2

_MIN_NOISE = 1e-6
# A fit looks at no more values than these, evenly chosen: its time grows with the cube, what it gains does not.
_FIT_VALUES = 300
# The largest component of the gradient at which a fit is done: a tenth of a unit of log probability.
_FIT_TOLERANCE = 0.1


@dataclass(frozen=True)
class Hyperparameters:
    """What a process is fitted by.

    Attributes:
        inverse_squared_lengthscales: One for each feature, and the last for "another trial".
        scale: The variance of a value before anything is seen.
        noise: The variance of what is measured around it.
    """

    inverse_squared_lengthscales: Matrix
    scale: float
    noise: float

    def covariance(self, x: Matrix, trials: Numbers, others: Matrix, other_trials: Numbers) -> Matrix:
        """Returns the covariances of values without noise, ``[len(x), len(others)]``."""
        matern, _ = _matern(self._squared_distance(x, trials, others, other_trials))
        return np.asarray(self.scale * matern)

    def _squared_distance(self, x: Matrix, trials: Numbers, others: Matrix, other_trials: Numbers) -> Matrix:
        *features, trial = self.inverse_squared_lengthscales
        weights = np.sqrt(features)
        a, b = x * weights, others * weights
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * a @ b.T
        np.maximum(squared, 0, out=squared)
        squared += trial * _differ(trials, other_trials)
        distance: Matrix = squared
        return distance


class GaussianProcess:
    """A process that has seen values, and knows where others will be seen.

    Those change its deviation alone: it is as if they had been seen, each as large as its mean.

    Args:
        hyperparameters: What it is fitted by.
        x: Features of what was seen, and after it of what will be, ``[n + m, d]``.
        trials: Which trial each is of, ``[n + m]``.
        y: The values, ``[n]``.

    Attributes:
        seen_mean: The posterior mean at what was seen, ``[n]``.

    Raises:
        numpy.linalg.LinAlgError: The covariance is not positive definite.
    """

    def __init__(self, hyperparameters: Hyperparameters, x: Matrix, trials: Numbers, y: Matrix) -> None:
        self._parameters = hyperparameters
        self._x, self._trials = x, trials
        covariance = hyperparameters.covariance(x, trials, x, trials)
        covariance[np.diag_indices_from(covariance)] += hyperparameters.noise
        self._inverse_root = _inverse_root(covariance)
        seen = self._inverse_root[: len(y), : len(y)]
        weights = seen.T @ (seen @ y)
        self.seen_mean = y - hyperparameters.noise * weights
        self._weights = np.concatenate([weights, np.zeros(len(x) - len(y))])

    def posterior(self, x: Matrix, trials: Numbers) -> tuple[Matrix, Matrix]:
        """Returns mean and standard deviation of the values without noise at some points, ``[m]`` each."""
        covariance = self._parameters.covariance(self._x, self._trials, x, trials)
        mean = covariance.T @ self._weights
        explained = self._inverse_root @ covariance
        # A mean of many varies as two of them do together.
        apart = np.where(trials == ALL_TRIALS, self._parameters.inverse_squared_lengthscales[-1], 0.0)
        variance = self._parameters.scale * _matern(apart)[0] - (explained * explained).sum(0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))


def fit(x: Matrix, trials: Numbers, y: Matrix) -> Hyperparameters:
    """Fits a process to values: the maximum of the posterior, always searched from the same point."""
    if len(y) > _FIT_VALUES:
        some = np.linspace(0, len(y) - 1, _FIT_VALUES).round().astype(int)
        x, trials, y = x[some], trials[some], y[some]
    start = np.zeros(x.shape[1] + 3)
    start[-1] = np.log(1e-2)
    best = minimise(lambda raw: negative_log_posterior(raw, x, trials, y), start, tolerance=_FIT_TOLERANCE)
    return _unpack(best)


def negative_log_posterior(raw: Matrix, x: Matrix, trials: Numbers, y: Matrix) -> tuple[float, Matrix]:
    """What :func:`fit` minimises, up to a constant, and its gradient.

    Args:
        raw: Logarithms of the inverse squared lengthscales, of the scale, and of the noise above its least value.
        x: Features, ``[n, d]``.
        trials: Which trial each is of, ``[n]``.
        y: The values, ``[n]``.
    """
    parameters = _unpack(raw)
    q, scale, noise = parameters.inverse_squared_lengthscales, parameters.scale, parameters.noise
    matern, slope = _matern(parameters._squared_distance(x, trials, x, trials))
    covariance = scale * matern
    covariance[np.diag_indices_from(covariance)] += noise
    try:
        root = _inverse_root(covariance)
    except np.linalg.LinAlgError:
        return np.inf, np.zeros_like(raw)
    white = root @ y
    value = 0.5 * float(white @ white) - float(np.log(np.diag(root)).sum())
    value += float((0.1 / q + 0.1 * q).sum()) + scale - np.log(scale) + 30 * noise - 0.1 * np.log(noise)

    weights = root.T @ white
    by_covariance = 0.5 * (root.T @ root - np.outer(weights, weights))
    by_distance = by_covariance * slope
    by_distance *= scale
    row_sums = by_distance.sum(1)
    by_q = np.append(
        2 * (row_sums @ (x * x) - (x * (by_distance @ x)).sum(0)),
        by_distance.sum(where=_differ(trials, trials)),
    )
    gradient = np.empty_like(raw)
    gradient[:-2] = q * (by_q - 0.1 / q**2 + 0.1)
    gradient[-2] = np.vdot(by_covariance, matern) * scale + scale - 1
    gradient[-1] = (noise - _MIN_NOISE) * (np.trace(by_covariance) + 30 - 0.1 / noise)
    return value, gradient


def _unpack(raw: Matrix) -> Hyperparameters:
    values = np.exp(np.clip(raw, -25, 25))
    return Hyperparameters(values[:-2], float(values[-2]), float(values[-1]) + _MIN_NOISE)


def _differ(trials: Numbers, others: Numbers) -> NDArray[np.bool_]:
    differ: NDArray[np.bool_] = (trials[:, None] != others[None, :]) | (trials[:, None] == NEW_TRIAL)
    return differ


def _matern(squared: Matrix) -> tuple[Matrix, Matrix]:
    """The Matern-5/2 function of a squared distance, and its derivative by it."""
    root = np.sqrt(5 * squared)
    decay = np.exp(-root)
    return decay * (1 + root + (5 / 3) * squared), (-5 / 6) * decay * (1 + root)


def _inverse_root(covariance: Matrix) -> Matrix:
    """The inverse R of the Cholesky factor: R @ covariance @ R.T is the identity."""
    return _inverse_of_lower(np.asarray(np.linalg.cholesky(covariance), np.float64))


def _inverse_of_lower(lower: Matrix) -> Matrix:
    """Inverts a lower triangular matrix by halves: numpy has no solver for triangles."""
    size = len(lower)
    if size <= 32:
        inverse: Matrix = np.tril(np.linalg.inv(lower))
        return inverse
    half = size // 2
    result = np.zeros_like(lower)
    result[:half, :half] = _inverse_of_lower(lower[:half, :half])
    result[half:, half:] = _inverse_of_lower(lower[half:, half:])
    result[half:, :half] = -result[half:, half:] @ lower[half:, :half] @ result[:half, :half]
    return result
