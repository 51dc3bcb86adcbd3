"""Shared building blocks of reports: Markdown tables, plots and HTML pages."""
