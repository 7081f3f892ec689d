"""The metrics that a search maximises."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SearchMetric:
    """A metric by which trials are compared; more is better."""

    name: str  # its name in ``--objective`` and its column in ``trials.parquet``
    metric: str  # its key in the metrics of an epoch
    label: str  # its name in text

    @property
    def title(self) -> str:
        """The label with a capital letter."""
        return self.label[0].upper() + self.label[1:]

    def write(self, value: float, position: float | None = None) -> str:
        """Format a value, or a tick of an axis: ``64.51%``, ``0.632``, ``1,383``."""
        return {"accuracy": f"{value:.2%}", "macro_f1": f"{value:.3f}"}.get(self.name, f"{value:,.0f}")

    def named(self, value: float) -> str:
        """Format the label and a value: ``validation accuracy 64.51%``."""
        return f"{self.label} {self.write(value)}"


OBJECTIVES = {
    objective.name: objective
    for objective in (
        SearchMetric("accuracy", "validation_accuracy", "validation accuracy"),
        SearchMetric("macro_f1", "validation_macro_f1", "validation macro-F1"),
        SearchMetric("images_per_s", "inference_images_per_s", "images/s predicted"),
    )
}
