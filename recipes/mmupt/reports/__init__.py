"""Tables and plots shared by every report."""
