"""The command line: `tinywindow`."""
