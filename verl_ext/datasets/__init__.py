"""The datasets that veRL reads in this project: rows without truth, and the sidecar files that hold it."""
