"""What of this directory pytest does not collect."""

# A program for `make fuzz`; it imports atheris, which is no dependency of the project.
collect_ignore = ["atheris_doors.py"]
