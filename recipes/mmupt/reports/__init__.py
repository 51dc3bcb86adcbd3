"""Markdown tables, plots and HTML pages for results of any kind."""
