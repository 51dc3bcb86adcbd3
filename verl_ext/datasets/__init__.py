"""veRL's datasets for this project: rows without ground truth, and the sidecar files that hold it."""
