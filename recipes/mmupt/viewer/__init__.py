"""`mmupt view`: a local web page of runs, with their curves, votes, evaluations and self-written questions.

`run_files.py` reads the folder of a run, with votes in `voted_groups.py` and evaluations in `evaluation_pairs.py`;
`server.py` serves it, and `page/` holds the page. The viewer writes nothing and notices changed files, so a run can be
viewed while it continues.
"""
