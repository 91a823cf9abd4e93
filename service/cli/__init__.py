"""The command line: `tosa-vqa` and `python -m service`."""
