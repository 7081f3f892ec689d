"""Figures, pages and cards that show what was measured."""
