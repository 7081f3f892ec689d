"""What a search wants to be large."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchMetric:
    """A figure by which trials are compared; more is better.

    Attributes:
        name: in ``--objective``, and as a column of ``trials.parquet``.
        metric: of an epoch, that measures it.
        label: in words.
    """

    name: str
    metric: str
    label: str

    @property
    def title(self) -> str:
        """The label at the beginning of a sentence or heading."""
        return self.label[0].upper() + self.label[1:]

    def write(self, value: float) -> str:
        """Return a value as a reader says it: ``64.51%``, ``0.632``, ``1,383``."""
        return {"accuracy": f"{value:.2%}", "macro_f1": f"{value:.3f}"}.get(self.name, f"{value:,.0f}")

    def named(self, value: float) -> str:
        """Return a value behind its label: ``validation accuracy 64.51%``."""
        return f"{self.label} {self.write(value)}"

    def tick(self, value: float, position: float | None = None) -> str:
        """Return a tick of an axis, with as many decimals as it has, two at most."""
        return {"accuracy": f"{100 * value:.4g}%", "macro_f1": f"{value:.3g}"}.get(self.name, f"{value:,.0f}")


OBJECTIVES = {
    objective.name: objective
    for objective in (
        SearchMetric("accuracy", "validation_accuracy", "validation accuracy"),
        SearchMetric("macro_f1", "validation_macro_f1", "validation macro-F1"),
        SearchMetric("images_per_s", "inference_images_per_s", "images/s predicted"),
    )
}
