"""Getting a database back: which recovery points, in which order, to which instant."""
