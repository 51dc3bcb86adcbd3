"""`mmupt view`: a local web page of runs, with their curves, votes, evaluations and self-written questions.

`run_files.py` reads the folder of a run, `server.py` hands it out, and `page/` is what the browser shows. It writes
nothing and caches only to speed up requests, so a run can be viewed while it goes on.
"""
