"""What pages say of the program, made from the program: `docs/hooks.py` puts it into them."""
