"""`mmupt view`: a local web page of runs, with their curves, votes, evaluations and self-written questions.

`run_files.py` reads the folder of a run, `server.py` hands it out, and `page/` is what the browser shows. Nothing is
written, and nothing is kept but what speeds up the next request, so that a run can be looked at while it goes on.
"""
