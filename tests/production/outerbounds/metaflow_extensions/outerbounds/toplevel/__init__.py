toplevel = "aliases"
