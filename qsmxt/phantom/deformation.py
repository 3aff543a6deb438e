"""Smooth maps from space to the head frame: other subjects, other positions of the head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qsmxt.errors import InputError

#: Root-mean-square displacement of a random deformation by its waves, mm.
AMPLITUDE = 2.5
#: Waves per component, and the range of their lengths, mm.
WAVES = 4
WAVELENGTHS = (100.0, 180.0)


@dataclass(frozen=True)
class Deformation:
    r"""A smooth invertible map from points in space to the head frame.

    .. math:: X = L\,x + t + a \sum_m \sin(K_m x + \varphi_m)

    with one set of waves per component. Turning or shifting the head first gives a map of the same form.

    Attributes
    ----------
    linear, shift
        :math:`L` (3 x 3) and :math:`t` (mm).
    waves, phases
        Wave vectors, rad/mm, ``(component, wave, xyz)``, and phases, rad, ``(component, wave)``.
    amplitude
        :math:`a`, mm.
    """

    linear: np.ndarray
    shift: np.ndarray
    waves: np.ndarray
    phases: np.ndarray
    amplitude: float

    @classmethod
    def identity(cls) -> Deformation:
        """The map that leaves all points where they are."""
        return cls(np.eye(3), np.zeros(3), np.zeros((3, 0, 3)), np.zeros((3, 0)), 0.0)

    @classmethod
    def random(cls, seed: int, amplitude: float = AMPLITUDE) -> Deformation:
        """Another subject: waves of ``amplitude`` (mm, root mean square of each component) and scales of 1.00 to 1.06.

        Scales above 1 make the head smaller, so that it does not outgrow the field of view.

        Raises
        ------
        InputError
            If the amplitude is so large that the map folds.
        """
        rng = np.random.default_rng([7919, seed])
        scale = rng.uniform(1.0, 1.06, 3)
        shift = np.array([0.0, 0.0, 3.0]) + rng.uniform(-1.5, 1.5, 3)
        directions = rng.normal(size=(3, WAVES, 3))
        directions /= np.linalg.norm(directions, axis=2, keepdims=True)
        waves = directions * (2 * np.pi / rng.uniform(*WAVELENGTHS, (3, WAVES, 1)))
        phases = rng.uniform(0, 2 * np.pi, (3, WAVES))
        deformation = cls(np.diag(scale), shift, waves, phases, amplitude * float(np.sqrt(2 / WAVES)))
        sides = [np.linspace(-120, 120, 13)] * 3
        points = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, 3)
        smallest = float(np.linalg.det(deformation.jacobian(points)).min())
        if smallest < 0.2:
            raise InputError(
                "deformation amplitude: expected one that keeps every volume above 0.2 of the original, found "
                f"{amplitude} mm, which shrinks one to {smallest:.2f}; take a smaller one or another seed"
            )
        return deformation

    def after(self, rotation: np.ndarray, translation: np.ndarray) -> Deformation:
        """This map of ``rotation @ x + translation``."""
        return Deformation(
            self.linear @ rotation,
            self.linear @ translation + self.shift,
            self.waves @ rotation,
            self.phases + self.waves @ translation,
            self.amplitude,
        )

    def at(self, points: np.ndarray) -> np.ndarray:
        """Head coordinates (mm) of ``points`` ``(n, 3)``."""
        angles = np.einsum("cmd,nd->ncm", self.waves, points) + self.phases
        return points @ self.linear.T + self.shift + self.amplitude * np.sin(angles).sum(axis=2)

    def jacobian(self, points: np.ndarray) -> np.ndarray:
        """Derivative of the map at ``points`` ``(n, 3)``: ``(n, component, direction)``."""
        angles = np.einsum("cmd,nd->ncm", self.waves, points) + self.phases
        return self.linear + self.amplitude * np.einsum("ncm,cmd->ncd", np.cos(angles), self.waves)

    def inverse(self, targets: np.ndarray) -> np.ndarray:
        """Points (mm) whose head coordinates are ``targets`` ``(n, 3)``, to 1e-6 mm, by Newton's iteration."""
        points = np.linalg.solve(self.linear, (targets - self.shift).T).T
        for _ in range(50):
            step = np.linalg.solve(self.jacobian(points), (targets - self.at(points))[..., None])[..., 0]
            points = points + step
            if np.abs(step).max(initial=0.0) < 1e-6:
                break
        return points

    def volume(self, component: int, axes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        """Head coordinate ``component`` (mm, float32) on the grid spanned by ``axes``."""
        x, y, z = (a.astype(np.float64) for a in axes)
        k, phase = self.waves[component], self.phases[component]
        first = x[:, None] * k[:, 0]
        second = y[None, :, None] * k[:, 1, None, None] + z[None, None, :] * k[:, 2, None, None] + phase[:, None, None]
        left = (self.amplitude * np.concatenate([np.sin(first), np.cos(first)], axis=1)).astype(np.float32)
        right = np.concatenate([np.cos(second), np.sin(second)]).astype(np.float32)
        right = right.reshape(2 * len(k), len(y) * len(z))
        out = (left @ right).reshape(len(x), len(y), len(z))
        for axis, line in enumerate((x, y, z)):
            part = self.linear[component, axis] * line + (self.shift[component] if axis == 0 else 0.0)
            out += part.astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        return out
