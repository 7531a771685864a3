"""What the node holds and may give out, as other systems ask for it: one row an object, written with the object."""
