"""`osora serve`: the supervisor of an embedded installation. It knows the programs by their command lines."""
