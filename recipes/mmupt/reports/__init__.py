"""How results are shown, whatever they are about: Markdown tables, plots and HTML pages."""
